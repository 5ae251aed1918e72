package main

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/norion/norion/runtime/store"
)

// progress shows the stages of a pull: on a terminal one bar each, with speed and remaining time;
// else one line when something is downloaded. It is used by one goroutine at a time.
type progress struct {
	w        io.Writer
	terminal bool
	bars     *mpb.Progress
	bar      *mpb.Bar
	stage    store.Stage
	last     time.Time
	rate     float64 // bytes per second, smoothed over speedWindow
	done     int64
}

const (
	barColumns  = 40
	speedWindow = 60 // reports that the speed is averaged over
)

func newProgress(w io.Writer, terminal bool) *progress {
	return &progress{w: w, terminal: terminal}
}

func (p *progress) report(r store.Progress) {
	if !p.terminal {
		if r.Stage != p.stage && r.Stage == store.StageDownload {
			fmt.Fprintf(p.w, "pulling %s\n", r.Name)
		}
		p.stage = r.Stage
		return
	}
	if p.bars == nil {
		p.bars = mpb.New(mpb.WithOutput(p.w), mpb.WithAutoRefresh(), mpb.WithWidth(barColumns))
	}
	now := time.Now()
	if r.Stage != p.stage || p.bar == nil {
		p.finish()
		p.stage, p.last, p.done = r.Stage, now, r.Done
		p.bar = p.bars.AddBar(r.Total,
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-12s", r.Stage))),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f / % .1f"),
				decor.EwmaSpeed(decor.SizeB1024(0), " % .1f", speedWindow),
				decor.OnComplete(decor.EwmaETA(decor.ET_STYLE_GO, speedWindow, decor.WC{W: 8}), ""),
			))
		p.bar.SetCurrent(r.Done) // resumed bytes do not count for the speed
		return
	}
	p.bar.SetTotal(r.Total, false)
	p.bar.EwmaSetCurrent(r.Done, now.Sub(p.last))
	p.last, p.done = now, r.Done
}

// finish completes the bar of the stage that is over.
func (p *progress) finish() {
	if p.bar != nil && !p.bar.Completed() {
		p.bar.SetTotal(-1, true)
	}
}

// end leaves the terminal as the pull left it. ok says that the pull succeeded.
func (p *progress) end(ok bool) {
	if p.bars == nil {
		return
	}
	if ok {
		p.finish()
	} else if p.bar != nil {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
