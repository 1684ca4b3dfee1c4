package intake

import (
	"io"

	"github.com/eclipse/paho.golang/packets"
)

// codec5 is MQTT 5.
type codec5 struct{}

func (codec5) connect(w io.Writer, b *Broker) error {
	window, largest := uint16(b.Window), uint32(maxPacket)
	c := &packets.Connect{ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: b.ClientID, KeepAlive: uint16(keepAlive.Seconds()), CleanStart: b.Clean,
		Username: b.User, UsernameFlag: b.User != "", Password: []byte(b.Password), PasswordFlag: b.Password != "",
		Properties: &packets.Properties{ReceiveMaximum: &window, MaximumPacketSize: &largest}, WillProperties: &packets.Properties{}}
	if !b.Clean {
		expiry := uint32(b.Expiry.Seconds())
		c.Properties.SessionExpiryInterval = &expiry
	}
	_, err := c.WriteTo(w)
	return err
}

func (codec5) subscribe(w io.Writer, b *Broker, filters []string) error {
	s := &packets.Subscribe{PacketID: 1, Properties: &packets.Properties{}}
	for _, f := range filters {
		o := packets.SubOptions{Topic: f, QoS: 1, RetainHandling: packets.RetainDoNotSend}
		if b.Retained {
			o.RetainHandling = packets.RetainSendOnSubscribeIfNew
		}
		if b.Clean {
			o.QoS = 0
		}
		s.Subscriptions = append(s.Subscriptions, o)
	}
	_, err := s.WriteTo(w)
	return err
}

func (codec5) puback(w io.Writer, id uint16) error {
	_, err := (&packets.Puback{PacketID: id, Properties: &packets.Properties{}}).WriteTo(w)
	return err
}

func (codec5) publish(w io.Writer, topic string, payload []byte) error {
	_, err := (&packets.Publish{Topic: topic, Payload: payload, Properties: &packets.Properties{}}).WriteTo(w)
	return err
}

func (codec5) ping(w io.Writer) error {
	_, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(w)
	return err
}

func (codec5) disconnect(w io.Writer) error {
	_, err := (&packets.Disconnect{Properties: &packets.Properties{}}).WriteTo(w)
	return err
}

func (codec5) read(r io.Reader) (packet, error) {
	p, err := packets.ReadPacket(r)
	if err != nil {
		return packet{}, err
	}
	switch c := p.Content.(type) {
	case *packets.Connack:
		return packet{kind: connack, code: c.ReasonCode, reason: c.Properties.ReasonString, present: c.SessionPresent}, nil
	case *packets.Suback:
		out := packet{kind: suback, reason: c.Properties.ReasonString}
		for _, code := range c.Reasons {
			out.code = max(out.code, code)
		}
		return out, nil
	case *packets.Publish:
		return packet{kind: publication, message: &Message{Topic: c.Topic, Payload: c.Payload, QoS: c.QoS, ID: c.PacketID, Dup: c.Duplicate, Retained: c.Retain}}, nil
	case *packets.Disconnect:
		return packet{kind: ended, code: c.ReasonCode, reason: c.Properties.ReasonString}, nil
	}
	return packet{}, nil
}
