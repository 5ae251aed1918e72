package store

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
)

// Home returns the absolute directory of norion's data, from the environment that getenv reads
// (os.Getenv): NORION_HOME; else XDG_DATA_HOME/norion when that is absolute; else
// ~/.local/share/norion, ~/Library/Application Support/norion on macOS, and
// %LocalAppData%\norion on Windows. It creates nothing.
func Home(getenv func(string) string) (string, error) {
	if h := getenv("NORION_HOME"); h != "" {
		return filepath.Abs(h)
	}
	if x := getenv("XDG_DATA_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "norion"), nil
	}
	if runtime.GOOS == "windows" {
		if l := getenv("LocalAppData"); filepath.IsAbs(l) {
			return filepath.Join(l, "norion"), nil
		}
	}
	home := getenv("HOME")
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return "", noHome(err)
		}
	}
	if !filepath.IsAbs(home) {
		return "", noHome(errors.New("the home directory is not an absolute path"))
	}
	switch runtime.GOOS {
	case "darwin":
		return filepath.Join(home, "Library", "Application Support", "norion"), nil
	case "windows":
		return filepath.Join(home, "AppData", "Local", "norion"), nil
	default:
		return filepath.Join(home, ".local", "share", "norion"), nil
	}
}

func noHome(err error) error {
	return &Error{
		Op: "open", Kind: ErrOptions, Name: "root", Err: err,
		Hint: "set NORION_HOME to the directory that should hold the models",
	}
}
