// Command outside checks a hub's ledger with code that is not ours: Tessera's client
// reads checkpoint and tiles, transparency-dev's Merkle code verifies the proofs made
// from them. It is a module of its own, so that the hub does not depend on what these
// need.
//
//	outside --url https://HOST:8443/ledger/ --key KEY --ca ca.pem [--old CHECKPOINT] [--witness KEY]
//
// It checks the signature, that all entries hash to the root, a proof of inclusion for
// each of a few entries, and, with an older checkpoint, a proof of consistency,
// and a witness's cosignature, if one is named.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/transparency-dev/formats/log"
	cosign "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	at := flag.String("url", "", "prefix of the log, with a slash at the end")
	key := flag.String("key", "", "verifier key of the log")
	ca := flag.String("ca", "", "file of the authority that the hub's certificate is of")
	old := flag.String("old", "", "file of an older checkpoint")
	witness := flag.String("witness", "", "verifier key of a witness that must have cosigned")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := check(ctx, *at, *key, *ca, *old, *witness); err != nil {
		fmt.Fprintln(os.Stderr, "outside:", err)
		os.Exit(1)
	}
}

func check(ctx context.Context, at, key, ca, old, witness string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	fetch, err := fetcher(at, ca)
	if err != nil {
		return err
	}
	head, signed, _, err := client.FetchCheckpoint(ctx, fetch.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		return fmt.Errorf("fetch checkpoint: %w", err)
	}
	if witness != "" {
		w, err := cosign.NewVerifierForCosignatureV1(witness)
		if err != nil {
			return err
		}
		if _, err := note.Open(signed, note.VerifierList(w)); err != nil {
			return fmt.Errorf("cosignature: %w", err)
		}
		fmt.Printf("%s cosigned it\n", w.Name())
	}
	leaves, err := entries(ctx, fetch, head)
	if err != nil {
		return err
	}
	prover, err := client.NewProofBuilder(ctx, head.Size, fetch.ReadTile)
	if err != nil {
		return err
	}
	for i := range leaves {
		if i%(len(leaves)/50+1) != 0 && i != len(leaves)-1 {
			continue
		}
		path, err := prover.InclusionProof(ctx, uint64(i))
		if err != nil {
			return fmt.Errorf("build inclusion proof of entry %d: %w", i, err)
		}
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), head.Size, leaves[i], path, head.Hash); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	fmt.Printf("%s: %d entries are those of the checkpoint\n", head.Origin, head.Size)
	if old == "" {
		return nil
	}
	return consistent(ctx, prover, verifier, head, old)
}

func fetcher(at, ca string) (*client.HTTPFetcher, error) {
	root, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(pem) {
		return nil, errors.New("the authority's file has no certificate")
	}
	return client.NewHTTPFetcher(root, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}})
}

// entries reads all entries and returns their leaf hashes, if they make the root.
func entries(ctx context.Context, fetch *client.HTTPFetcher, head *log.Checkpoint) ([][]byte, error) {
	var leaves [][]byte
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for bundle := uint64(0); uint64(len(leaves)) < head.Size; bundle++ {
		b, err := client.GetEntryBundle(ctx, fetch.ReadEntryBundle, bundle, head.Size)
		if err != nil {
			return nil, fmt.Errorf("fetch entries: %w", err)
		}
		for _, e := range b.Entries {
			leaf := rfc6962.DefaultHasher.HashLeaf(e)
			leaves = append(leaves, leaf)
			if err := tree.Append(leaf, nil); err != nil {
				return nil, err
			}
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return nil, err
	}
	if string(root) != string(head.Hash) {
		return nil, errors.New("the entries are not those of the checkpoint")
	}
	return leaves, nil
}

func consistent(ctx context.Context, prover *client.ProofBuilder, verifier note.Verifier, head *log.Checkpoint, old string) error {
	kept, err := os.ReadFile(old)
	if err != nil {
		return err
	}
	before, _, _, err := log.ParseCheckpoint(kept, verifier.Name(), verifier)
	if err != nil {
		return fmt.Errorf("older checkpoint: %w", err)
	}
	path, err := prover.ConsistencyProof(ctx, before.Size, head.Size)
	if err != nil {
		return fmt.Errorf("build consistency proof: %w", err)
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, before.Size, head.Size, path, before.Hash, head.Hash); err != nil {
		return err
	}
	fmt.Printf("it begins with the %d entries of the older checkpoint\n", before.Size)
	return nil
}
