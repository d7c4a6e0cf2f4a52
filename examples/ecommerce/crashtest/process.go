package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is one of the shop's processes, in all its lives.
type process struct {
	name, dir, binary string
	args              []string

	cmd   *exec.Cmd // nil while it is dead
	log   *os.File
	ended chan struct{}
	err   error // why it ended; read after ended is closed
}

func (p *process) logFile() string { return filepath.Join(p.dir, p.name+".log") }

func (p *process) start() error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.log, p.ended = cmd, log, make(chan struct{})
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return nil
}

// alive returns an error if the process ended by itself.
func (p *process) alive() error {
	if p.cmd == nil {
		return nil
	}
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %w", p.name, p.err)
	default:
		return nil
	}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && p.alive() == nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.ended
	p.cmd = nil
	return p.log.Close()
}

// stop asks the process to end, which it must do soon and without an error.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.ended:
	case <-t.C:
		return fmt.Errorf("%s still runs %v after SIGTERM", p.name, patience)
	}
	if p.err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w", p.name, p.err)
	}
	p.cmd = nil
	return p.log.Close()
}

// logHasNo returns an error with the first line of the log that has text.
func (p *process) logHasNo(text string) error {
	log, err := os.ReadFile(p.logFile())
	if err != nil {
		return err
	}
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(text)) {
			return fmt.Errorf("%s logged: %s", p.name, bytes.TrimSpace(line))
		}
	}
	return nil
}
