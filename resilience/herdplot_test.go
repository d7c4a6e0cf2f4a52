package resilience_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var updateHerd = flag.Bool("update-herd", false, "write the plot and the table of the thundering herd into docs")

// keepFile compares a generated file with what is in it.
func keepFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if *updateHerd {
		require.NoError(t, os.WriteFile(path, want, 0o644)) //nolint:gosec // a document
		return
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%s is not what the simulation shows; go test ./resilience -run Herd -update-herd", path)
}

const (
	herdTableBegin = "<!-- figures: go test ./resilience -run Herd -update-herd -->\n"
	herdTableEnd   = "<!-- end of figures -->\n"
)

// keepTable compares a generated part of a page with what is in it.
func keepTable(t *testing.T, page, want string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, begins := strings.Cut(string(text), herdTableBegin)
	_, after, ends := strings.Cut(rest, herdTableEnd)
	require.True(t, begins && ends, "%s lacks the lines %s%s", page, herdTableBegin, herdTableEnd)
	keepFile(t, page, []byte(before+herdTableBegin+want+herdTableEnd+after))
}

// herdTable is the figures of the runs.
func herdTable(runs []*herdRun) string {
	var s strings.Builder
	s.WriteString("| clients | attempts/s towards the end of the outage | while it is cold | from then on | 95 % succeed again after | success in the last 30 s |\n|---|---|---|---|---|---|\n")
	for _, r := range runs {
		recovery := "never"
		if after, ok := r.recovery(); ok {
			recovery = fmt.Sprintf("%d s", after/time.Second)
		}
		rate := func(from, to time.Duration) int { return r.offered.between(from, to) * int(time.Second) / int(to-from) }
		fmt.Fprintf(&s, "| %s | %d | %d | %d | %s | %.0f %% |\n", r.name, rate(herdReturn-10*time.Second, herdReturn),
			rate(herdReturn, herdWarm), rate(herdWarm, herdEnd), recovery, 100*r.success(herdEnd-30*time.Second, herdEnd))
	}
	return s.String()
}

// The plot: a panel for each run, one below the other, with the same scales.
const (
	plotWidth  = 860
	plotLeft   = 48
	plotRight  = 16
	plotHead   = 64
	plotPanel  = 130 // without its title
	plotTitle  = 38
	plotFoot   = 44
	plotUnit   = float64(plotWidth-plotLeft-plotRight) / float64(herdEnd/time.Second) // of a second
	plotStyles = `<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:12px;fill:#59636e}.title{font-weight:600}
.page{fill:#fff}.grid{stroke:#d1d9e0}.down{fill:#d1d9e0;opacity:.6}.cold{fill:#d1d9e0;opacity:.25}
.capacity{fill:none;stroke:#59636e;stroke-dasharray:5 4}.offered{fill:none;stroke:#bc4c00;stroke-width:1.6}
.good{fill:none;stroke:#0969da;stroke-width:2.2}.area{fill:#0969da;opacity:.12}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.page{fill:#0d1117}.grid{stroke:#3d444d}
.down{fill:#656c76;opacity:.4}.cold{fill:#656c76;opacity:.2}.capacity{stroke:#9198a1}.offered{stroke:#f0883e}.good{stroke:#4493f8}.area{fill:#4493f8;opacity:.2}}
</style>
`
)

type plot struct {
	bytes.Buffer
	most int // at the top of each panel
}

func herdPlot(runs []*herdRun) []byte {
	p := &plot{}
	for _, r := range runs {
		for _, n := range r.offered {
			p.most = max(p.most, (n+99)/100*100)
		}
	}
	height := plotHead + len(runs)*(plotTitle+plotPanel) + plotFoot
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="t">`+"\n", plotWidth, height)
	p.add(`<title id="t">%d clients call a dependency that is down from second %d to %d: load and goodput by how they call it</title>`+"\n",
		herdProcesses*herdPerProcess, herdDies/time.Second, herdReturn/time.Second)
	p.add(plotStyles+`<rect class="page" width="%d" height="%d"/>`+"\n", plotWidth, height)
	p.legend()
	for i, r := range runs {
		p.panel(r, float64(plotHead+i*(plotTitle+plotPanel)+plotTitle))
	}
	p.axis(float64(height - plotFoot))
	p.add("</svg>\n")
	return p.Bytes()
}

func (p *plot) add(format string, args ...any) { fmt.Fprintf(p, format, args...) }

func plotX(at time.Duration) float64 { return plotLeft + plotUnit*at.Seconds() }

// y is the height of n in a panel whose top is given.
func (p *plot) y(top float64, n int) float64 {
	return top + plotPanel*(1-float64(n)/float64(p.most))
}

func (p *plot) legend() {
	p.add(`<text class="title" x="%d" y="24">Calls per second: what reaches the dependency, and what succeeds in time</text>`+"\n", plotLeft)
	at := plotLeft
	for _, l := range []struct {
		class, text string
		width       int
	}{{"offered", "attempts that reach it", 180}, {"good", "calls that succeed", 160}, {"capacity", "its capacity", 120}} {
		p.add(`<path class="%s" d="M%d 44h26"/><text class="small" x="%d" y="48">%s</text>`+"\n", l.class, at, at+32, l.text)
		at += l.width
	}
	for _, l := range []struct{ class, text string }{{"down", "it is down"}, {"cold", "back, with cold caches"}} {
		p.add(`<rect class="%s" x="%d" y="37" width="26" height="14"/><text class="small" x="%d" y="48">%s</text>`+"\n", l.class, at, at+32, l.text)
		at += 110
	}
}

func (p *plot) panel(r *herdRun, top float64) {
	outcome := "does not recover"
	if after, ok := r.recovery(); ok {
		outcome = fmt.Sprintf("95 %% succeed again after %d s", after/time.Second)
	}
	p.add(`<text class="title" x="%d" y="%g">%s</text>`+"\n", plotLeft, top-8, r.name)
	p.add(`<text class="small" x="%d" y="%g" text-anchor="end">%s</text>`+"\n", plotWidth-plotRight, top-8, outcome)
	p.add(`<rect class="down" x="%.1f" y="%g" width="%.1f" height="%d"/>`, plotX(herdDies), top, plotX(herdReturn)-plotX(herdDies), plotPanel)
	p.add(`<rect class="cold" x="%.1f" y="%g" width="%.1f" height="%d"/>`+"\n", plotX(herdReturn), top, plotX(herdWarm)-plotX(herdReturn), plotPanel)
	for n := 0; n <= p.most; n += 300 {
		p.add(`<path class="grid" d="M%d %.1fH%d"/><text class="small" x="%d" y="%.1f" text-anchor="end">%d</text>`+"\n",
			plotLeft, p.y(top, n), plotWidth-plotRight, plotLeft-8, p.y(top, n)+4, n)
	}
	full, cold := p.y(top, herdCapacity), p.y(top, herdColdCapacity)
	p.add(`<path class="capacity" d="M%d %.1fH%.1fM%.1f %.1fH%.1fV%.1fH%d"/>`+"\n",
		plotLeft, full, plotX(herdDies), plotX(herdReturn), cold, plotX(herdWarm), full, plotWidth-plotRight)
	p.line("offered", top, r.offered)
	p.add(`<path class="area" d="M%.1f %.1fL%sV%.1fZ"/>`+"\n", plotX(time.Second/2), p.y(top, 0), p.points(top, r.good), p.y(top, 0))
	p.line("good", top, r.good)
}

func (p *plot) line(class string, top float64, seconds perSecond) {
	p.add(`<path class="%s" d="M%s"/>`+"\n", class, p.points(top, seconds))
}

// points has each second's value in the middle of the second.
func (p *plot) points(top float64, seconds perSecond) string {
	var points []string
	for i, n := range seconds {
		points = append(points, fmt.Sprintf("%.1f %.1f", plotX(time.Duration(i)*time.Second+time.Second/2), p.y(top, n)))
	}
	return strings.Join(points, "L")
}

func (p *plot) axis(bottom float64) {
	for at := time.Duration(0); at <= herdEnd; at += 10 * time.Second {
		p.add(`<path class="grid" d="M%.1f %gv5"/><text class="small" x="%.1f" y="%g" text-anchor="middle">%d</text>`+"\n",
			plotX(at), bottom, plotX(at), bottom+19, at/time.Second)
	}
	p.add(`<text class="small" x="%d" y="%g" text-anchor="end">seconds</text>`+"\n", plotWidth-plotRight, bottom+36)
}
