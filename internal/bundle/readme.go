package bundle

// Readme is README.md of a bundle.
const Readme = `# Your data

This folder holds all of an owner's data, exported from Holdfast, in open formats.

- ` + "`data/observations/part-*.parquet`" + `: the readings, one row each. The columns are described in ` + "`datapackage.json`" + `;
  ` + "`type`" + ` says which of number, integer, boolean, text, bytes and latitude, longitude, altitude has the value.
- ` + "`data/*.ndjson`" + `: devices, streams, assignments, purposes, grants you made, disclosures (who read what, when and why),
  events (your part of the ledger), the proofs of these (` + "`data/ledger.ndjson`" + `) and the balance sheet. One JSON object a line; ids connect them.
- ` + "`data/receipts/*.json`" + `: a signed receipt of each grant, to keep by itself (` + "`holdfast verify`" + ` checks one).

## Is it complete and unchanged?

    sha256sum -c manifest-sha256.txt
    sha256sum -c tagmanifest-sha256.txt

` + "`holdfast verify .`" + ` does the same, adds the readings up against ` + "`data/balance.ndjson`" + `, checks that every event is in the hub's
ledger and none of yours is left out (` + "`data/ledger.ndjson`" + `), and checks ` + "`signature.note`" + `: a signed note (https://c2sp.org/signed-note) of the hub, whose key is in ` + "`bag-info.txt`" + `. Compare that key with the one the hub publishes.

## Reading it

DuckDB:

    SELECT device_name, stream, time, number FROM 'data/observations/*.parquet' WHERE type = 'number' ORDER BY time LIMIT 10;
    SELECT * FROM read_json('data/disclosures.ndjson');

Python:

    import pandas
    readings = pandas.read_parquet('data/observations')
`
