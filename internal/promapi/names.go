package promapi

import (
	"strings"

	"github.com/holdfast-iot/holdfast/internal/query"
)

// Labels of a series, beside its name.
const (
	labelDevice = "device" // what the device is called, its id where the reader may not know that
	labelOwner  = "owner"  // likewise
	labelStream = "stream" // the exact name of the stream
)

// units says how a unit is spelt at the end of a metric's name: those of SenML (RFC
// 8428) and what devices write in their place.
var units = map[string]string{
	"Cel": "celsius", "°C": "celsius", "degC": "celsius", "C°": "celsius", "K": "kelvin", "°F": "fahrenheit", "degF": "fahrenheit",
	"%": "percent", "%RH": "percent", "/": "ratio", "%EL": "percent", "EL": "seconds",
	"m": "meters", "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "m2": "square_meters", "m3": "cubic_meters", "l": "liters", "L": "liters",
	"g": "grams", "kg": "kilograms", "s": "seconds", "ms": "milliseconds", "min": "minutes", "h": "hours", "d": "days", "Hz": "hertz", "kHz": "kilohertz",
	"V": "volts", "mV": "millivolts", "kV": "kilovolts", "A": "amperes", "mA": "milliamperes", "W": "watts", "kW": "kilowatts", "MW": "megawatts", "VA": "voltamperes", "var": "vars",
	"J": "joules", "kJ": "kilojoules", "Wh": "watt_hours", "kWh": "kilowatt_hours", "C": "coulombs", "F": "farads", "Ohm": "ohms", "Ω": "ohms", "H": "henries", "S": "siemens",
	"Pa": "pascals", "hPa": "hectopascals", "kPa": "kilopascals", "bar": "bars", "mbar": "millibars", "N": "newtons", "Nm": "newton_meters",
	"T": "teslas", "Wb": "webers", "lm": "lumens", "lx": "lux", "cd": "candelas", "W/m2": "watts_per_square_meter", "Bq": "becquerels", "Gy": "grays", "Sv": "sieverts",
	"m/s": "meters_per_second", "km/h": "kilometers_per_hour", "m/s2": "meters_per_second_squared", "rad": "radians", "deg": "degrees", "°": "degrees", "lat": "degrees", "lon": "degrees",
	"1/min": "per_minute", "beat/min": "beats_per_minute", "bpm": "beats_per_minute", "beats": "beats", "rpm": "revolutions_per_minute", "1/s": "per_second",
	"m3/s": "cubic_meters_per_second", "l/s": "liters_per_second", "l/min": "liters_per_minute", "kat": "katals", "mol": "moles", "pH": "ph",
	"dB": "decibels", "dBm": "decibel_milliwatts", "dBW": "decibel_watts", "Bspl": "bels", "B": "bytes", "kB": "kilobytes", "MB": "megabytes", "bit": "bits", "bit/s": "bits_per_second", "B/s": "bytes_per_second",
	"count": "", "ppm": "parts_per_million", "ppb": "parts_per_billion", "ug/m3": "micrograms_per_cubic_meter", "µg/m3": "micrograms_per_cubic_meter", "μg/m3": "micrograms_per_cubic_meter",
}

// unitOf is a unit as it ends a name; "" for none.
func unitOf(unit string) string {
	if spelt, ok := units[unit]; ok {
		return spelt
	}
	return strings.Trim(strings.ToLower(spell(unit)), "_")
}

// metricName is what the series of a stream are called: the stream's name, what a
// metric can't be called spelt with _, and its unit if that is not its end already.
func metricName(s *query.Source) string {
	name, unit := spell(s.Stream), unitOf(s.Unit)
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	if unit == "" || name == unit || strings.HasSuffix(name, "_"+unit) {
		return name
	}
	return name + "_" + unit
}

// spell puts one _ in the place of each stretch that can't stand in a metric's name.
func spell(text string) string {
	var b strings.Builder
	gap := false
	for _, c := range text {
		if c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
			gap = false
		} else if !gap {
			b.WriteByte('_')
			gap = true
		}
	}
	return b.String()
}
