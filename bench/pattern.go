package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Span is a piece of a prompt: seeded text, or the answer to an earlier request.
type Span struct {
	Seed   int    // of the text; of two texts of one seed the shorter begins the longer
	Tokens int    // of the text
	Answer string // the name of the earlier request whose whole answer this is; no text then
}

// Ask is one request of a pattern.
type Ask struct {
	Name   string
	Prompt []Span
	Answer int // tokens to generate, whatever the model would rather do
}

// Stage is what happens at once. Stages follow each other.
type Stage struct {
	Restart bool // everything in memory goes away first
	Asks    []Ask
}

// Pattern is a scripted workload in which prompts have something in common.
type Pattern struct {
	Name   string
	Stages []Stage
	// Chunks lets runs of at least so many tokens be reused at another place than before. They were
	// computed behind other tokens, so that it is an approximation; 0 allows exact prefixes only.
	Chunks int
	// Crowded leaves room for one conversation only, so that the others are put aside.
	Crowded bool
	// Outlives says that what was computed is to be kept over a restart.
	Outlives bool
}

// Sizes are the lengths in tokens, and the counts, that patterns are built from.
type Sizes struct {
	System int   // text that requests begin with
	Turn   int   // what a user says
	Answer int   // what is answered
	Turns  int   // of a conversation, and steps of an agent
	Users  []int // who share one system prompt, one pattern for each number
}

// DefaultSizes and QuickSizes are what Sizes are when nobody says.
var (
	DefaultSizes = Sizes{System: 1500, Turn: 24, Answer: 16, Turns: 6, Users: []int{16, 64}}
	QuickSizes   = Sizes{System: 192, Turn: 8, Answer: 4, Turns: 3, Users: []int{16}}
)

// Bounds of Sizes.
const (
	SizeTokensMax = 1 << 20
	TurnsMax      = 256
	UsersMax      = 256
)

// Fill puts defaults in place of zeros.
func (s Sizes) Fill(quick bool) Sizes {
	def := DefaultSizes
	if quick {
		def = QuickSizes
	}
	for _, f := range []struct{ value, def *int }{
		{&s.System, &def.System},
		{&s.Turn, &def.Turn},
		{&s.Answer, &def.Answer},
		{&s.Turns, &def.Turns},
	} {
		if *f.value == 0 {
			*f.value = *f.def
		}
	}
	if len(s.Users) == 0 {
		s.Users = def.Users
	}
	return s
}

// Validate refuses sizes that make no pattern. Errors: ErrFlag.
func (s *Sizes) Validate() error {
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"system", s.System, SizeTokensMax},
		{"turn", s.Turn, SizeTokensMax},
		{"answer", s.Answer, SizeTokensMax},
		{"turns", s.Turns, TurnsMax},
	} {
		if f.value < 1 || f.value > f.max {
			return badFlag(f.name, "", "%d is outside 1..%d", f.value, f.max)
		}
	}
	if len(s.Users) == 0 || len(s.Users) > 8 {
		return badFlag("users", "give 1 to 8 numbers", "%d numbers", len(s.Users))
	}
	for _, n := range s.Users {
		if n < 1 || n > UsersMax {
			return badFlag("users", "", "%d is outside 1..%d", n, UsersMax)
		}
	}
	return nil
}

// Args are the flags that give these sizes to `norion bench reuse`.
func (s *Sizes) Args() []string {
	users := make([]string, len(s.Users))
	for i, n := range s.Users {
		users[i] = strconv.Itoa(n)
	}
	return []string{
		"--system", strconv.Itoa(s.System), "--turn", strconv.Itoa(s.Turn),
		"--answer", strconv.Itoa(s.Answer), "--turns", strconv.Itoa(s.Turns),
		"--users", strings.Join(users, ","),
	}
}

// chunkMin is the shortest run of tokens that is worth moving, for norion and llama-server alike.
const chunkMin = 16

// Seeds of texts: each use has a range of its own.
const (
	seedSystem = 1
	seedTurn   = 1000
	seedOther  = 2000 // the same places in another conversation
	seedResult = 3000
	seedChunk  = 4000
)

// Patterns lists the patterns of these sizes.
func (s Sizes) Patterns() []Pattern {
	out := []Pattern{s.chat()}
	for _, n := range s.Users {
		out = append(out, s.fanOut(n))
	}
	out = append(out, s.branch(), s.agent(), s.documents(), s.restart(), s.parked())
	for _, p := range []Pattern{s.agent(), s.documents()} {
		p.Name, p.Chunks = p.Name+"-approximate", chunkMin
		out = append(out, p)
	}
	return out
}

func text(seed, tokens int) Span      { return Span{Seed: seed, Tokens: tokens} }
func answer(name string) Span         { return Span{Answer: name} }
func one(a Ask) Stage                 { return Stage{Asks: []Ask{a}} }
func (s Sizes) system() Span          { return text(seedSystem, s.System) }
func (s Sizes) turn(i int) Span       { return text(seedTurn+i, s.Turn) }
func turnName(i int) string           { return fmt.Sprintf("turn %d", i+1) }
func join(a []Span, b ...Span) []Span { return append(slices.Clone(a), b...) }

// chat is one conversation: each prompt is the one before, its answer and what the user says.
func (s Sizes) chat() Pattern {
	p := Pattern{Name: "chat"}
	history := []Span{s.system()}
	for i := range s.Turns {
		history = join(history, s.turn(i))
		p.Stages = append(p.Stages, one(Ask{turnName(i), history, s.Answer}))
		history = join(history, answer(turnName(i)))
	}
	return p
}

// fanOut is one system prompt, and users who all come at once.
func (s Sizes) fanOut(users int) Pattern {
	var all Stage
	for i := range users {
		all.Asks = append(all.Asks, Ask{
			fmt.Sprintf("user %d", i+1), []Span{s.system(), s.turn(i)}, s.Answer,
		})
	}
	return Pattern{Name: fmt.Sprintf("fan-out-%d", users), Stages: []Stage{all}}
}

// branch is a conversation that goes on in four ways at once; then one of them is tried again, and
// another is begun from the first turn.
func (s Sizes) branch() Pattern {
	base := []Span{s.system(), s.turn(0)}
	next := join(base, answer("base"))
	var ways Stage
	for i := range 4 {
		ways.Asks = append(ways.Asks,
			Ask{fmt.Sprintf("branch %d", i+1), join(next, s.turn(i+1)), s.Answer})
	}
	return Pattern{Name: "branch-and-retry", Stages: []Stage{
		one(Ask{"base", base, s.Answer}),
		ways,
		one(Ask{"retry", join(next, s.turn(2)), s.Answer}),
		one(Ask{"other start", join(base, s.turn(9)), s.Answer}),
	}}
}

// agent is a loop of steps, each with a long result that is cut to a quarter two steps later: what
// comes after the cut moves.
func (s Sizes) agent() Pattern {
	p := Pattern{Name: "agent-edited-history"}
	for i := range s.Turns {
		prompt := []Span{s.system()}
		for j := range i {
			result := text(seedResult+j, 4*s.Turn)
			if j+2 < i {
				result.Tokens = s.Turn
			}
			prompt = join(prompt, answer(fmt.Sprintf("step %d", j+1)), result)
		}
		p.Stages = append(p.Stages,
			one(Ask{fmt.Sprintf("step %d", i+1), join(prompt, s.turn(0)), s.Answer}))
	}
	return p
}

// documents asks questions about four chunks that come in another order each time.
func (s Sizes) documents() Pattern {
	p := Pattern{Name: "documents-moved"}
	chunk := max(1, s.System/4)
	for i, order := range [][]int{{0, 1, 2, 3}, {0, 2, 1, 3}, {3, 0, 1, 2}, {1, 2, 3, 0}} {
		prompt := []Span{text(seedSystem, s.Turn)}
		for _, c := range order {
			prompt = join(prompt, text(seedChunk+c, chunk))
		}
		p.Stages = append(p.Stages,
			one(Ask{fmt.Sprintf("question %d", i+1), join(prompt, s.turn(i)), s.Answer}))
	}
	return p
}

// restart is a conversation that goes on, once without and once with a restart between.
func (s Sizes) restart() Pattern {
	first := []Span{s.system(), s.turn(0)}
	second := join(first, answer("cold"), s.turn(1))
	third := join(second, answer("live"), s.turn(2))
	return Pattern{Name: "restart", Outlives: true, Stages: []Stage{
		one(Ask{"cold", first, s.Answer}),
		one(Ask{"live", second, s.Answer}),
		{Restart: true, Asks: []Ask{{"restored", third, s.Answer}}},
	}}
}

// parked is a conversation that goes on after another of the same length, where there is room for
// one only.
func (s Sizes) parked() Pattern {
	first := []Span{s.system(), s.turn(0)}
	second := join(first, answer("cold"), s.turn(1))
	third := join(second, answer("live"), s.turn(2))
	return Pattern{Name: "parked", Crowded: true, Stages: []Stage{
		one(Ask{"cold", first, s.Answer}),
		one(Ask{"live", second, s.Answer}),
		one(Ask{"stranger", []Span{text(seedOther, s.System), s.turn(3)}, s.Answer}),
		one(Ask{"parked", third, s.Answer}),
	}}
}

// Longest is the most tokens that one request of the pattern needs, prompt and answer.
func (p *Pattern) Longest() int { return p.most(1) }

// AtOnce is the most requests that run at once.
func (p *Pattern) AtOnce() int {
	n := 0
	for _, s := range p.Stages {
		n = max(n, len(s.Asks))
	}
	return n
}

// distinct is how many tokens the pattern has when all that is equal is counted once.
func (p *Pattern) distinct() int {
	texts, sum := map[int]int{}, 0
	for _, stage := range p.Stages {
		for _, a := range stage.Asks {
			sum += a.Answer
			for _, s := range a.Prompt {
				texts[s.Seed] = max(texts[s.Seed], s.Tokens)
			}
		}
	}
	for _, n := range texts {
		sum += n
	}
	return sum
}

// most is the most tokens that any n requests of one stage need together, nothing shared.
func (p *Pattern) most(n int) int {
	answers := map[string]int{}
	most := 0
	for _, stage := range p.Stages {
		var needs []int
		for _, a := range stage.Asks {
			answers[a.Name] = a.Answer
			need := a.Answer
			for _, s := range a.Prompt {
				need += s.Tokens + answers[s.Answer]
			}
			needs = append(needs, need)
		}
		slices.Sort(needs)
		sum := 0
		for _, need := range needs[max(0, len(needs)-n):] {
			sum += need
		}
		most = max(most, sum)
	}
	return most
}
