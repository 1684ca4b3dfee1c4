package sparkplug

import (
	"slices"
	"strings"

	"github.com/holdfast-iot/holdfast"
)

// Namespace is the first level of every topic of Sparkplug B.
const Namespace = "spBv1.0"

// Topic is where a message was published.
type Topic struct {
	Group  string // "" of a host's STATE
	Type   string // NBIRTH, NDATA, ...
	Node   string // of STATE: the host
	Device string // "" for the node itself
}

var (
	nodeTypes   = []string{"NBIRTH", "NDATA", "NDEATH", "NCMD"}
	deviceTypes = []string{"DBIRTH", "DDATA", "DDEATH", "DCMD"}
)

// ParseTopic reads spBv1.0/GROUP/TYPE/NODE[/DEVICE] and spBv1.0/STATE/HOST.
func ParseTopic(topic string) (Topic, error) {
	levels := strings.Split(topic, "/")
	if levels[0] != Namespace {
		return Topic{}, holdfast.Errorf(holdfast.Invalid, "a topic of Sparkplug B begins with %s/", Namespace)
	}
	for _, l := range levels {
		if l == "" {
			return Topic{}, holdfast.Errorf(holdfast.Invalid, "a level of the topic is empty")
		}
	}
	switch {
	case len(levels) == 3 && levels[1] == "STATE":
		return Topic{Type: "STATE", Node: levels[2]}, nil
	case len(levels) == 4 && slices.Contains(nodeTypes, levels[2]):
		return Topic{Group: levels[1], Type: levels[2], Node: levels[3]}, nil
	case len(levels) == 5 && slices.Contains(deviceTypes, levels[2]):
		return Topic{Group: levels[1], Type: levels[2], Node: levels[3], Device: levels[4]}, nil
	}
	return Topic{}, holdfast.Errorf(holdfast.Invalid, "the topics of Sparkplug B are %s/GROUP/TYPE/NODE, %s/GROUP/TYPE/NODE/DEVICE and %s/STATE/HOST, with a type that it knows",
		Namespace, Namespace, Namespace)
}

// Birth reports whether it says which metrics there are.
func (t Topic) Birth() bool { return t.Type == "NBIRTH" || t.Type == "DBIRTH" }

// Death reports whether it says that the node or device is gone.
func (t Topic) Death() bool { return t.Type == "NDEATH" || t.Type == "DDEATH" }

// Data reports whether it carries values of metrics that were born.
func (t Topic) Data() bool { return t.Type == "NDATA" || t.Type == "DDATA" }
