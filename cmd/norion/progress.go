package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/norion/norion/runtime/store"
)

// progress shows a pull: on a terminal a bar with speed and remaining time for what is downloaded
// or verified; else one line when something is downloaded. It is used by one goroutine at a time.
type progress struct {
	w        io.Writer
	terminal bool
	bars     *mpb.Progress // nil before the first bar
	bar      *mpb.Bar      // of the stage, or nil
	stage    store.Stage
	last     time.Time // of the last report
}

const (
	barColumns  = 40
	speedWindow = 60 // reports that the speed is averaged over
)

func newProgress(w io.Writer, terminal bool) *progress {
	return &progress{w: w, terminal: terminal}
}

func (p *progress) report(r store.Progress) {
	begins := r.Stage != p.stage
	p.stage = r.Stage
	switch {
	case begins && r.Stage == store.StageWait:
		fmt.Fprintf(p.w, "another process is pulling %s; waiting\n", r.Name)
	case begins && r.Stage == store.StageDownload && !p.terminal:
		fmt.Fprintf(p.w, "pulling %s\n", r.Name)
	case p.terminal && (r.Stage == store.StageDownload || r.Stage == store.StageVerify):
		p.draw(r, begins)
	}
}

// draw moves the bar of the stage, or begins one.
func (p *progress) draw(r store.Progress, begins bool) {
	now := time.Now()
	if begins {
		p.finish()
		if p.bars == nil {
			p.bars = mpb.New(mpb.WithOutput(p.w), mpb.WithAutoRefresh(), mpb.WithWidth(barColumns))
		}
		p.bar = p.bars.AddBar(0, // so that it can be completed whatever the total
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-12s", r.Stage))),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f / % .1f"),
				decor.EwmaSpeed(decor.SizeB1024(0), " % .1f", speedWindow),
				decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, speedWindow, decor.WC{W: 8}), ""),
			))
		p.bar.SetTotal(r.Total, false)
		p.bar.SetCurrent(r.Done) // resumed bytes do not count for the speed
	} else {
		p.bar.SetTotal(r.Total, false)
		p.bar.EwmaSetCurrent(r.Done, now.Sub(p.last))
	}
	p.last = now
}

// finish completes the bar of the stage that is over.
func (p *progress) finish() {
	if p.bar != nil && !p.bar.Completed() {
		p.bar.SetTotal(-1, true)
	}
	p.bar = nil
}

// end leaves the terminal as the pull left it. ok says that the pull succeeded.
func (p *progress) end(ok bool) {
	if p.bars == nil {
		return
	}
	if p.bar != nil && !ok {
		p.bar.Abort(false)
	}
	p.finish()
	p.bars.Wait()
}
