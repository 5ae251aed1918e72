package house_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cxxQuiet matches what may hold braces without meaning: comments, raw strings, strings, characters
// and lines of the preprocessor.
var cxxQuiet = regexp.MustCompile(`(?sm)//[^\n]*|/\*.*?\*/|^\s*#(?:\\\n|[^\n])*|` +
	`R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'`)

// shimFunctions gives the first and last line of every outermost function body of a C++ text. It
// reads braces only: a brace whose head has parentheses and is no type, namespace or initialiser
// opens a function.
func shimFunctions(text string) [][2]int {
	text = cxxQuiet.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Repeat("\n", strings.Count(s, "\n"))
	})
	scope := regexp.MustCompile(`^\s*(namespace|struct|class|enum|union|extern)\b`)
	var found [][2]int
	head, line, depth, first, inside := 0, 1, 0, 0, -1
	for i, c := range text {
		switch c {
		case '\n':
			line++
		case ';':
			head = i + 1
		case '{':
			h := text[head:i]
			if inside < 0 && strings.Contains(h, "(") && !scope.MatchString(h) &&
				!strings.HasSuffix(strings.TrimSpace(h), "=") {
				inside = depth
				first = line - strings.Count(strings.TrimLeft(h, " \t\n"), "\n")
			}
			depth++
			head = i + 1
		case '}':
			depth--
			if depth == inside {
				found = append(found, [2]int{first, line})
				inside = -1
			}
			head = i + 1
		}
	}
	return found
}

func TestShimFunctions(t *testing.T) {
	t.Parallel()
	text := `#include <a(b).h>
namespace {
struct box {
    int a; // }
    int get() const { return a; }
};
const int table[] = {1, 2};

int
two(const char * s)
{
    if (s[0] == '}') {
        return R"({{)"[0];
    }
    auto f = [&]() { return 1; };
    return f(); /* } */
}
} // namespace
extern "C" {
int three(void) { return 3; }
}
`
	require.Equal(t, [][2]int{{5, 5}, {9, 17}, {20, 20}}, shimFunctions(text))
}
