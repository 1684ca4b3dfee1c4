package intake

import (
	"io"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// codec3 is MQTT 3.1.1.
type codec3 struct{}

func (codec3) connect(w io.Writer, b *Broker) error {
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession = "MQTT", 4, b.Clean
	c.ClientIdentifier, c.Keepalive = b.ClientID, uint16(keepAlive.Seconds())
	c.Username, c.UsernameFlag = b.User, b.User != ""
	c.Password, c.PasswordFlag = []byte(b.Password), b.Password != ""
	return c.Write(w)
}

func (codec3) subscribe(w io.Writer, b *Broker, filters []string) error {
	s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	s.MessageID, s.Topics = 1, filters
	for range filters {
		q := byte(1)
		if b.Clean {
			q = 0
		}
		s.Qoss = append(s.Qoss, q)
	}
	return s.Write(w)
}

func (codec3) puback(w io.Writer, id uint16) error {
	p := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	p.MessageID = id
	return p.Write(w)
}

func (codec3) publish(w io.Writer, topic string, payload []byte) error {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic, payload
	return p.Write(w)
}

func (codec3) ping(w io.Writer) error { return packets.NewControlPacket(packets.Pingreq).Write(w) }

func (codec3) disconnect(w io.Writer) error {
	return packets.NewControlPacket(packets.Disconnect).Write(w)
}

func (codec3) read(r io.Reader) (packet, error) {
	p, err := packets.ReadPacket(r)
	if err != nil {
		return packet{}, err
	}
	switch c := p.(type) {
	case *packets.ConnackPacket:
		return packet{kind: connack, code: c.ReturnCode, present: c.SessionPresent}, nil
	case *packets.SubackPacket:
		out := packet{kind: suback}
		for _, code := range c.ReturnCodes {
			out.code = max(out.code, code)
		}
		return out, nil
	case *packets.PublishPacket:
		return packet{kind: publication, message: &Message{Topic: c.TopicName, Payload: c.Payload, QoS: c.Qos, ID: c.MessageID, Dup: c.Dup, Retained: c.Retain}}, nil
	}
	return packet{}, nil
}
