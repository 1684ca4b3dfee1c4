// Prints payloads of Sparkplug B, in hex, as the library in the folder of the first argument encodes them.
const { get } = require(process.argv[2] + '/node_modules/sparkplug-payload');
const sparkplug = get('spBv1.0');
const at = 1772366400250;
const metric = (name, type, value, more) => ({ name, type, value, ...more });
const payloads = {
  nbirth: { timestamp: at, seq: 0, metrics: [
    metric('bdSeq', 'UInt64', 3), metric('Node Control/Rebirth', 'Boolean', false),
    metric('Line/Temperature', 'Double', 21.5, { alias: 1, timestamp: at - 1, properties: { engLow: { type: 'Double', value: 0 }, engUnit: { type: 'String', value: 'Cel' } } }),
    metric('Line/Count', 'Int64', -5, { alias: 2 }), metric('Line/Running', 'Boolean', true, { alias: 3 }), metric('Recipe', 'String', 'dough', { alias: 4 }) ] },
  ndata: { timestamp: at + 1000, seq: 1, metrics: [
    { alias: 1, type: 'Double', value: 22.25 }, { alias: 2, type: 'Int64', value: -6 }, { alias: 3, type: 'Boolean', value: false }, { alias: 99, type: 'Double', value: 1 } ] },
  types: { timestamp: at, seq: 2, metrics: [
    metric('i8', 'Int8', -8), metric('i16', 'Int16', -300), metric('i32', 'Int32', -70000), metric('i64', 'Int64', -5000000000),
    metric('u8', 'UInt8', 200), metric('u16', 'UInt16', 60000), metric('u32', 'UInt32', 4000000000), metric('u64', 'UInt64', 5000000000),
    metric('float', 'Float', 0.5), metric('double', 'Double', 0.1), metric('true', 'Boolean', true), metric('string', 'String', 'ünï'), metric('text', 'Text', ''),
    metric('uuid', 'UUID', 'd9f5c0de-0000-4000-8000-000000000000'), metric('when', 'DateTime', at), metric('bytes', 'Bytes', new Uint8Array([0, 255])),
    metric('null', 'Int32', null), metric('set', 'DataSet', { numOfColumns: 1, columns: ['a'], types: ['Int32'], rows: [[1]] }),
    metric('old', 'Double', 1, { timestamp: at - 86400000, isHistorical: true }) ] },
};
const out = {};
for (const [name, p] of Object.entries(payloads)) out[name] = Buffer.from(sparkplug.encodePayload(p)).toString('hex');
process.stdout.write(JSON.stringify(out, null, 1) + '\n');
