// A device that speaks by MQTT.js: publishes 0 to count-1 to data/STREAM while it
// loses its connection again and again, says what it saw as JSON, and leaves its
// will behind.
//
//	node mqttjs.js FOLDER OPTIONS, as JSON: url, dir, version, qos, count, stream
const [folder, text] = process.argv.slice(2);
const mqtt = require('module').createRequire(folder + '/')('mqtt');
const fs = require('fs');
const o = JSON.parse(text);
const file = name => fs.readFileSync(o.dir + '/' + name);

const client = mqtt.connect(o.url, {
  ca: file('ca.pem'), cert: file('cert.pem'), key: file('key.pem'),
  protocolVersion: o.version, clientId: o.stream, clean: false, keepalive: 30, reconnectPeriod: 50,
  properties: o.version === 5 ? { sessionExpiryInterval: 300 } : undefined,
  autoAssignTopicAlias: o.version === 5,
  will: { topic: 'event/' + o.stream, payload: 'gone', qos: 1 },
});
const seen = { connects: 0, present: 0, aliasMaximum: 0, retain: true, refused: 0, subscribed: [] };
client.on('connect', ack => {
  seen.connects++;
  if (ack.sessionPresent) seen.present++;
  if (ack.properties) {
    seen.aliasMaximum = ack.properties.topicAliasMaximum;
    seen.retain = ack.properties.retainAvailable;
  }
});
const fail = e => { console.error(e); process.exit(1); };
setTimeout(() => fail('it takes too long: ' + JSON.stringify(seen)), 50000).unref();
client.on('error', fail);

const publish = (topic, payload) => new Promise((done, no) =>
  client.publish(topic, payload, { qos: o.qos }, e => e ? no(e) : done()));

client.once('connect', async () => {
  try {
    const all = [];
    for (let i = 0; i < o.count; i++) {
      all.push(publish('data/' + o.stream, String(i)));
      if (o.qos > 0 && i % 100 === 50) {
        await new Promise(setImmediate);
        client.stream.destroy(); // in the middle of what is under way
        await new Promise(done => client.once('connect', done));
      }
    }
    await Promise.all(all);
    if (o.qos > 0) await publish('nowhere', '1').catch(e => { seen.refused = e.code; });
    await new Promise(done => client.subscribe('cmd', (e, granted, packet) => { seen.subscribed = packet.granted; done(); }));
    await publish('data/' + o.stream + '-ended', '1');
    client.options.reconnectPeriod = 0;
    client.stream.destroy(); // no goodbye: the will is due
    client.once('close', () => { console.log(JSON.stringify(seen)); process.exit(0); });
  } catch (e) { fail(e); }
});
