// A device in JavaScript: a reading a second, each kept until the hub says that it is durable.
//   npm install mqtt
//   node device.js IDENTITY mqtts://HUB:8883 [COUNT]
const fs = require('fs');
const path = require('path');
const mqtt = require('mqtt');

const [identity, hub, count = 'forever'] = process.argv.slice(2);
const file = (name) => fs.readFileSync(path.join(identity, name));

const client = mqtt.connect(hub, {
  ca: file('ca.pem'), cert: file('cert.pem'), key: file('key.pem'), // the certificate says who it is
  protocolVersion: 5, clientId: 'main', clean: false, properties: { sessionExpiryInterval: 86400 },
});
client.on('error', (e) => console.error('connection:', e.message)); // it connects again by itself

let sent = 0;
let stored = 0;
const timer = setInterval(() => {
  const reading = { t: Date.now() / 1000, v: 20 + Math.sin(sent / 10) }; // with its time, it may be sent twice
  client.publish('data/temperature', JSON.stringify(reading), { qos: 1 }, (e) => {
    if (e) return console.error('refused:', e.message); // MQTT 5 says why
    stored += 1;
    console.log(`${stored} stored`);
    if (String(stored) === count) client.end();
  });
  sent += 1;
  if (String(sent) === count) clearInterval(timer);
}, count === 'forever' ? 1000 : 50);
