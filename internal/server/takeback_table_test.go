package server

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-iot/holdfast/internal/ledger"
)

// decision says of a kind of event what of it a restore must not undo: as these
// take-backs, or nothing, because.
type decision struct {
	back []ledger.TakeBackKind
	not  string
}

func back(kinds ...ledger.TakeBackKind) decision { return decision{back: kinds} }

func not(why string) decision { return decision{not: why} }

// decisions has one for every kind of event there is.
func decisions() map[string]decision {
	const (
		gives  = "it gives something: who loses it in a restore is given it again"
		asks   = "it asks, and binds nobody: it is asked again"
		folder = "keys.json says it, which is in no backup: whoever restores names what there is"
		states = "it says what a device or an alarm is like, not what somebody may"
	)
	return map[string]decision{
		"alarm acknowledged": not(states), "alarm muted": not(states), "alarm unmuted": not(states), "alarm sent": not("it was sent"),
		"alarm added": not(gives), "alarm changed": back(ledger.AlarmChanged), "alarm ended": back(ledger.AlarmEnded),

		"assignment closed": back(ledger.DeviceClosed, ledger.AssignmentChange),
		"backup begun":      back(ledger.BackupBegun), "backup ended": not("that it began is what counts: somebody may have it"),
		"bar set": not("an erasure's bars are set again with it; a new owner's are for a device that is not known there"),

		"certificate issued":  not("one that is not known there opens nothing; the code that it was issued for has ended, and a device that renewed its own still has the one before"),
		"certificate revoked": back(ledger.DeviceRevoked), "enrolment code made": back(ledger.CodeEnded),
		"claim code made": back(ledger.ClaimCodeEnded), "device claimed": back(ledger.ClaimCodeEnded),
		"device added": not(gives), "device released": back(ledger.DeviceClosed), "gateway gone": back(ledger.GatewayGone),

		"command sent": not("what waits expires: whether the device has had it is not known"), "command cancelled": not("what waits expires"),
		"command expired": not("what waits expires"), "command done": not(states), "command failed": not(states), "desired changed": not(states),

		"credential made": not(gives), "credential revoked": back(ledger.CredentialRevoked), "invitation made": back(ledger.InvitationEnded),
		"permission asked": not(asks), "permission approved": not(gives), "permission refused": back(ledger.PermissionEnded), "permission ended": back(ledger.PermissionEnded),
		"recovery code used": back(ledger.RecoveryUsed), "second factor added": not("it lets a young credential do more"), "second factor removed": back(ledger.FactorEnded),
		"role changed": not("staff's issuer says the role anew in each token"),

		"disclosure opened": not("readings of before that were read since are not known to have been; what is read again is written down again"), "disclosure closed": not("as opened"),

		"erasure proposed": not(asks), "erasure waits again": not("a restore has given it another window: the next one does, too"), "erasure waits": back(ledger.ErasureAccepted), "erasure asked": back(ledger.ErasureAccepted),
		"erasure begun": not("with its asking"), "erasure done": not("with its asking: carried out again, it is certified again"),
		"erasure refused": back(ledger.ErasureUndone), "erasure undone": back(ledger.ErasureUndone), "erasure expired": back(ledger.ErasureUndone),
		"readings expired": not("the copy of the keyring has their keys no more"), "retraction acknowledged": back(ledger.RecipientAcked),
		"rekey begun": not("what was done stands in the copy of the keyring; the rest is asked for again"), "rekey done": not("it stands in the copy of the keyring"),

		"grant made": not(gives), "grant ended": back(ledger.GrantEnded), "group declared": not(gives),
		"group ended": not("what a recipient declared for himself: grants say what he is told of it"),
		"hold set":    back(ledger.HoldChange), "hold to be lifted": back(ledger.HoldChange), "hold ended": back(ledger.HoldChange),
		"purpose added": not(gives), "purpose ended": back(ledger.PurposeChange), "purpose revived": back(ledger.PurposeChange),
		"retention rule set": back(ledger.RetentionChange), "retention rule ended": back(ledger.RetentionChange),

		"joint erasure asked": not(asks), "joint erasure confirmed": not(asks), "joint erasure begun": back(ledger.JointChange),
		"joint erasure expired": back(ledger.JointChange), "joint erasure withdrawn": back(ledger.JointChange),
		"member offered": not(gives), "member accepted": not(gives), "member added": not(gives),
		"member declined": back(ledger.MembershipEnded), "member ended": back(ledger.MembershipEnded), "majority reached": back(ledger.MembershipEnded),
		"party added": not(gives), "profile added": not("a new version is for devices of then"),
		"period added": back(ledger.PeriodTerms), "period changed": back(ledger.PeriodTerms), "period ended": back(ledger.PeriodTerms), "period closed": back(ledger.PeriodTerms),
		"release asked": not(asks), "release objected": back(ledger.NoticeChange), "release withdrawn": back(ledger.NoticeChange),
		"transfer offered": not(gives), "transfer taken": back(ledger.TransferChange, ledger.DeviceClosed), "transfer declined": back(ledger.TransferChange),
		"transfer withdrawn": back(ledger.TransferChange), "transfer expired": back(ledger.TransferChange),

		"keyring copy added": not(folder), "keyring copy removed": not(folder), "root key holder added": not(folder), "root key holder fenced": not(folder + ", and no fenced one opens what came since"),
		"root key holder removed": not(folder), "root key holder returned": not(folder),
		"ledger renewed": back(ledger.OriginRenewed),
		"recovery dealt": back(ledger.DealEnded), "recovery ended": back(ledger.DealEnded), "recovery rehearsed": not("it is rehearsed again"),
		"recovery share destroyed": not("without that word certificates say pending: it is given again"),
		"restored":                 not("it is of the folder that it made"), "restore confirmed": not("of a restore of before: the next one is confirmed by itself"),

		"webhook added": not(gives), "webhook active": back(ledger.WebhookChange), "webhook disabled": back(ledger.WebhookChange),
		"webhook ended": back(ledger.WebhookChange), "webhook rotated": back(ledger.WebhookChange),
	}
}

// Every kind of event says whether a restore may undo it, and no take-back is of
// nothing that happens.
func TestEachEventSaysWhatARestoreMustNotUndo(t *testing.T) {
	all, found := decisions(), eventKinds(t)
	for kind, at := range found {
		if d, ok := all[kind]; !ok {
			t.Errorf("%s: a restore undoes %q, or must not: decide it here, and if it must not write a take-back beside the event (docs/format/takeback.md)", at, kind)
		} else if (d.not == "") == (len(d.back) == 0) {
			t.Errorf("%q is taken back, or it is not and says why", kind)
		}
	}
	of := map[ledger.TakeBackKind]bool{
		// Beside an event that is another's, or none.
		ledger.RecipientTold: true, // of an erasure that was asked for
	}
	for kind, d := range all {
		if found[kind] == "" {
			t.Errorf("no event is of kind %q", kind)
		}
		for _, k := range d.back {
			of[k] = true
		}
	}
	for _, k := range ledger.TakeBackKinds() {
		if !of[k] {
			t.Errorf("no event is taken back as %s", k)
		}
		delete(of, k)
	}
	for k := range of {
		t.Errorf("%s is no kind of take-back", k)
	}
}

// spoken are kinds that are put together from what a table or a message says.
func spoken() map[string][]string {
	return map[string][]string{
		"internal/erasure/replay.go t.State": {"undone", "refused", "expired"}, // of erasure.undone
		"internal/twin/result.go a.Status":   {"done", "failed"},               // but for accepted
	}
}

// eventKinds finds, in the source, every kind of event that is appended to the ledger,
// and where.
func eventKinds(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]*source{}
	files := token.NewFileSet()
	for _, root := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && d.Name() == "testdata" {
				if err == nil {
					err = filepath.SkipDir
				}
				return err
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			dir := filepath.Dir(path)
			if all[dir] == nil {
				all[dir] = &source{name: f.Name.Name, files: files, consts: map[string]string{}, all: all}
			}
			all[dir].read(f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]string{}
	for _, p := range all {
		for _, c := range p.calls {
			if c.name != "Append" || len(c.Args) != 5 {
				continue
			}
			if ctx, ok := c.Args[0].(*ast.Ident); !ok || ctx.Name != "ctx" {
				continue
			}
			at := files.Position(c.Pos()).String()
			have, err := p.texts(c.Args[3], c.in, 0)
			if err != nil {
				t.Errorf("%s: the kind of this event can't be followed (%v): pass it as a constant, or as a parameter that is given one", at, err)
			}
			for _, k := range have {
				kinds[k] = strings.TrimPrefix(at, "../../")
			}
		}
		for _, e := range p.kinds {
			at := files.Position(e.Pos()).String()
			have, err := p.texts(e.Expr, e.in, 0)
			if err != nil {
				t.Errorf("%s: the kind of this event can't be followed: %v", at, err)
			}
			for _, k := range have {
				kinds[k] = strings.TrimPrefix(at, "../../")
			}
		}
	}
	delete(kinds, "") // of a change without an event
	return kinds
}

// source is a package's, as far as texts that are passed on can be followed in it.
type source struct {
	name   string
	files  *token.FileSet
	consts map[string]string
	calls  []call
	kinds  []kindOf // of ledger.Happening
	all    map[string]*source
}

type kindOf struct {
	ast.Expr
	in *ast.FuncDecl
}

type call struct {
	*ast.CallExpr
	name string
	in   *ast.FuncDecl
}

func (p *source) read(f *ast.File) {
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i < len(v.Values) {
						if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
							p.consts[name.Name], _ = strconv.Unquote(lit.Value)
						}
					}
				}
			}
		}
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if l, ok := n.(*ast.CompositeLit); ok {
				if of, ok := l.Type.(*ast.SelectorExpr); ok && of.Sel.Name == "Happening" {
					for _, e := range l.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Kind" {
							p.kinds = append(p.kinds, kindOf{kv.Value, fn})
						}
					}
				}
			}
			if c, ok := n.(*ast.CallExpr); ok {
				switch f := c.Fun.(type) {
				case *ast.Ident:
					p.calls = append(p.calls, call{c, f.Name, fn})
				case *ast.SelectorExpr:
					p.calls = append(p.calls, call{c, f.Sel.Name, fn})
				}
			}
			return true
		})
	}
}

// texts returns what an expression within a function can be.
func (p *source) texts(e ast.Expr, in *ast.FuncDecl, depth int) ([]string, error) {
	if depth > 8 {
		return nil, fmt.Errorf("too deep")
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return []string{s}, err
	case *ast.BinaryExpr:
		left, err := p.texts(e.X, in, depth+1)
		if err != nil {
			return nil, err
		}
		right, err := p.texts(e.Y, in, depth+1)
		var out []string
		for _, l := range left {
			for _, r := range right {
				out = append(out, l+r)
			}
		}
		return out, err
	case *ast.SelectorExpr:
		if of, ok := e.X.(*ast.Ident); ok {
			at := strings.TrimPrefix(p.files.Position(e.Pos()).Filename, "../../")
			if said := spoken()[at+" "+of.Name+"."+e.Sel.Name]; said != nil {
				return said, nil
			}
			for _, o := range p.all {
				if v, ok := o.consts[e.Sel.Name]; ok && o.name == of.Name {
					return []string{v}, nil
				}
			}
		}
	case *ast.Ident:
		return p.named(e.Name, in, depth)
	}
	return nil, fmt.Errorf("%T", e)
}

// named returns what a constant, a parameter or a variable can be.
func (p *source) named(name string, in *ast.FuncDecl, depth int) (out []string, err error) {
	if v, ok := p.consts[name]; ok {
		return []string{v}, nil
	}
	add := func(e ast.Expr, in *ast.FuncDecl) {
		have, e2 := p.texts(e, in, depth+1)
		out = append(out, have...)
		if err == nil {
			err = e2
		}
	}
	at := 0
	for _, field := range in.Type.Params.List {
		for _, n := range field.Names {
			if n.Name == name {
				for _, c := range p.calls {
					if c.name == in.Name.Name && len(c.Args) > at {
						add(c.Args[at], c.in)
					}
				}
			}
			at++
		}
	}
	ast.Inspect(in.Body, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok {
			for i, l := range a.Lhs {
				if id, ok := l.(*ast.Ident); ok && id.Name == name {
					if len(a.Rhs) != len(a.Lhs) {
						err = fmt.Errorf("%s comes from a call", name)
						continue
					}
					add(a.Rhs[i], in)
				}
			}
		}
		if v, ok := n.(*ast.ValueSpec); ok {
			for i, id := range v.Names {
				if id.Name == name && i < len(v.Values) {
					add(v.Values[i], in)
				}
			}
		}
		return true
	})
	if len(out) == 0 && err == nil {
		err = fmt.Errorf("nobody says what %s is", name)
	}
	slices.Sort(out)
	return slices.Compact(out), err
}
