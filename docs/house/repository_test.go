package house_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// registries are hosts of package registries. Their clients know them; the tree does not name them.
// Each is put together so that this file is no violation.
func registries() []string {
	return []string{
		"pypi." + "org", "python" + "hosted.org", "npmjs." + "org", "npmjs." + "com",
		"crates." + "io", "proxy.golang." + "org", "sum.golang." + "org", "ruby" + "gems.org",
		"repo.maven." + "apache.org", "nuget." + "org",
	}
}

func registryRule(files tree) []string {
	var found []string
	for _, name := range files.names() {
		for n, line := range lines(files[name]) {
			for _, host := range registries() {
				if strings.Contains(line, host) {
					found = append(found, fmt.Sprintf("%s:%d: names the registry %s", name, n+1, host))
				}
			}
		}
	}
	return found
}

// machinePathRule refuses paths that exist on somebody's machine only.
func machinePathRule(files tree) []string {
	machine := regexp.MustCompile("(?:^|[\\s\"'`=(:,\\[])(" +
		"/ho" + "me/\\w|/ro" + "ot/|/Us" + "ers/\\w|/wo" + "rk/|/t" + "mp/\\w|[A-Z]:\\\\+Us" + "ers)")
	var found []string
	for _, name := range files.names() {
		if strings.Contains(files[name], "\x00") {
			continue // not a text
		}
		text := lines(files[name])
		for n, line := range text {
			m := machine.FindStringSubmatch(line)
			if m != nil && !allowed("machine-path", line, text[max(0, n-1)]) {
				found = append(found, fmt.Sprintf("%s:%d: absolute path %s...", name, n+1, m[1]))
			}
		}
	}
	return found
}

// topLevelRule allows these names at the top; a room appears when it has content.
func topLevelRule(files tree) []string {
	may := strings.Fields("cmd runtime kv control hw third_party bench docs")
	must := strings.Fields("go.mod go.sum Makefile README.md LICENSE")
	seen := map[string]bool{}
	var found []string
	for _, name := range files.names() {
		top, _, below := strings.Cut(name, "/")
		if seen[top] {
			continue
		}
		seen[top] = true
		if !strings.HasPrefix(top, ".") && !slices.Contains(may, top) &&
			(below || !slices.Contains(must, top)) {
			found = append(found, top+": not one of the top level's names")
		}
	}
	for _, name := range must {
		if !seen[name] {
			found = append(found, name+": missing")
		}
	}
	return found
}

// dependencyADR lists every direct dependency in a table.
const dependencyADR = "docs/adr/0002-dependencies.md"

// dependencyRule wants a row in the ADR for each module that a Go file imports from.
func dependencyRule(files tree) []string {
	required := regexp.MustCompile(`(?m)^\s*(?:require\s+)?(\S+\.\S+) v\S+`)
	var modules []string
	for _, m := range required.FindAllStringSubmatch(files["go.mod"], -1) {
		modules = append(modules, m[1])
	}
	direct := map[string]string{}
	for _, g := range files.goFiles() {
		for _, spec := range g.file.Imports {
			pkg := strings.Trim(spec.Path.Value, "\"`")
			for _, m := range modules {
				if (pkg == m || strings.HasPrefix(pkg, m+"/")) && direct[m] == "" {
					direct[m] = g.name
				}
			}
		}
	}
	var found []string
	for _, m := range slices.Sorted(maps.Keys(direct)) {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(m) + "` *(\\|[^|\n]*\\S[^|\n]*){3}\\|$")
		if !row.MatchString(files[dependencyADR]) {
			found = append(found, fmt.Sprintf("%s: no full row for %s, which %s imports",
				dependencyADR, m, direct[m]))
		}
	}
	return found
}

// makeHelpRule wants the verbs in `make help`, which prints the targets that have a "## " text.
func makeHelpRule(files tree) []string {
	var found []string
	verbs := "help run build native peers test race asan fuzz bench lint cover clean"
	for _, verb := range strings.Fields(verbs) {
		if !regexp.MustCompile(`(?m)^` + verb + `:.*## \S`).MatchString(files["Makefile"]) {
			found = append(found, "Makefile: no verb "+verb)
		}
	}
	if !strings.Contains(files[".ci/run"], "make test") {
		found = append(found, ".ci/run: does not call make test")
	}
	return found
}

// readmeRule wants the two set-up commands in the README, and no third.
func readmeRule(files tree) []string {
	var made []string
	for _, line := range fenced(files["README.md"]) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "$ "))
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "make ") {
			made = append(made, line)
		}
	}
	slices.Sort(made)
	if made = slices.Compact(made); !slices.Equal(made, []string{"make run", "make test"}) {
		return []string{fmt.Sprintf("README.md: the set-up commands are `make run` and `make test`, "+
			"not %q", made)}
	}
	return nil
}
