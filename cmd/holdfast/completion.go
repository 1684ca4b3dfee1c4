package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (*completionCmd) Help() string {
	return `Prints a script that completes commands, flags and their fixed values. Packages
put it where the shell looks for it; without one, put it there yourself.

Example:
  holdfast completion bash > ~/.local/share/bash-completion/completions/holdfast
  holdfast completion zsh > ~/.zfunc/_holdfast     # with fpath+=~/.zfunc in .zshrc
  holdfast completion fish > ~/.config/fish/completions/holdfast.fish`
}

func (c *completionCmd) Run(a *app, k *kong.Context) error {
	_, err := io.WriteString(a.stdout, completion(c.Shell, places("", k.Model.Node)))
	return err
}

// place is a point of the command line: what may follow there.
type place struct {
	at    string // the commands up to here, /party/add
	help  string
	verbs []*kong.Node
	flags []*kong.Flag
}

// places walks the commands, the root first.
func places(at string, n *kong.Node) []place {
	p := place{at: at, help: n.Help}
	for group := range slices.Values(n.AllFlags(true)) {
		p.flags = append(p.flags, group...)
	}
	all := []place{}
	for _, child := range n.Children {
		if child.Type == kong.CommandNode && !child.Hidden {
			p.verbs = append(p.verbs, child)
			all = append(all, places(at+"/"+child.Name, child)...)
		}
	}
	return append([]place{p}, all...)
}

// words are what may follow, flags and verbs.
func (p place) words() string {
	var w []string
	for _, v := range p.verbs {
		w = append(w, v.Name)
	}
	for _, f := range p.flags {
		w = append(w, "--"+f.Name)
	}
	return strings.Join(w, " ")
}

// values are what a flag takes, if it is one of a few words.
func values(f *kong.Flag) string {
	if f.Enum == "" {
		return ""
	}
	return strings.Join(slices.DeleteFunc(f.EnumSlice(), func(s string) bool { return s == "" }), " ")
}

func completion(shell string, all []place) string {
	if shell == "fish" {
		return fishCompletion(all)
	}
	var verbs, words, enums, free strings.Builder
	for _, p := range all {
		if p.at != "" {
			fmt.Fprintf(&verbs, "%s|", p.at)
		}
		fmt.Fprintf(&words, "    '%s') list='%s' ;;\n", p.at, p.words())
		for _, f := range p.flags {
			if v := values(f); v != "" {
				fmt.Fprintf(&enums, "    '%s --%s') list='%s' ;;\n", p.at, f.Name, v)
			} else if !f.IsBool() && !f.IsCounter() {
				fmt.Fprintf(&free, "'%s --%s'|", p.at, f.Name)
			}
		}
	}
	cases := fmt.Sprintf(`  case "$at" in
%s  esac
  case "$at $before" in
%s    %s) list= ;;
  esac
`, words.String(), enums.String(), strings.TrimSuffix(free.String(), "|"))
	known := strings.TrimSuffix(verbs.String(), "|")
	if shell == "zsh" {
		return `#compdef holdfast
_holdfast() {
  local at= before=${words[CURRENT-1]} list= word
  for word in ${words[2,CURRENT-1]}; do
    case "$at/$word" in
    ` + known + `) at="$at/$word" ;;
    esac
  done
` + cases + `  if [[ -n $list ]]; then compadd -- ${=list}; else _files; fi
}
if [[ ${funcstack[1]} == _holdfast ]]; then _holdfast "$@"; else compdef _holdfast holdfast; fi
`
	}
	return `# bash completion of holdfast
_holdfast() {
  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} at= list= word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$at/$word" in
    ` + known + `) at="$at/$word" ;;
    esac
  done
` + cases + `  COMPREPLY=($(compgen -W "$list" -- "$current"))
}
complete -o default -o bashdefault -F _holdfast holdfast
`
}

func fishCompletion(all []place) string {
	var b strings.Builder
	var known []string
	for _, p := range all[1:] {
		known = append(known, p.at)
	}
	fmt.Fprintf(&b, `# fish completion of holdfast
function __holdfast_at
  set -l at ''
  for word in (commandline -opc)[2..]
    contains -- "$at/$word" %s; and set at "$at/$word"
  end
  echo "at$at"
end
complete -c holdfast -e
`, strings.Join(known, " "))
	for _, p := range all {
		at := fmt.Sprintf("complete -c holdfast -n 'test (__holdfast_at) = at%s'", p.at)
		for _, v := range p.verbs {
			fmt.Fprintf(&b, "%s -f -a %s -d %s\n", at, v.Name, fishText(v.Help))
		}
		for _, f := range p.flags {
			more := ""
			if v := values(f); v != "" {
				more = " -x -a '" + v + "'"
			} else if !f.IsBool() && !f.IsCounter() {
				more = " -r"
			}
			fmt.Fprintf(&b, "%s -l %s%s -d %s\n", at, f.Name, more, fishText(f.Help))
		}
	}
	return b.String()
}

// fishText is a help text as one word of fish.
func fishText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
