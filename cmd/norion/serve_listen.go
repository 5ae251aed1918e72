package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/norion/norion/runtime/infer"
)

// listenFlags say where a server listens, and how.
type listenFlags struct {
	host, unix      string
	port            int
	certFile, key   string
	selfSigned      bool
	hosts           []string
	fingerprintNote string
}

func (f *listenFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.host, "host", "127.0.0.1", "`ADDRESS` to listen at")
	fs.IntVarP(&f.port, "port", "p", 8080, "port to listen at; 0: any that is free")
	fs.StringVar(&f.unix, "unix", "", "listen at the unix socket `PATH`, which only this user can use")
	fs.StringVar(&f.certFile, "tls-cert", "", "certificate `FILE` in PEM form, for https")
	fs.StringVar(&f.key, "tls-key", "", "`FILE` of its private key in PEM form")
	fs.BoolVar(&f.selfSigned, "tls-self-signed", false,
		"make a certificate for this run and print its fingerprint")
	fs.StringArrayVar(&f.hosts, "allow-host", nil,
		"name by which clients may call this server; may be repeated")
}

// local says that only this machine can connect.
func (f *listenFlags) local() bool {
	ip := net.ParseIP(f.host)
	return f.unix != "" || f.host == "localhost" || ip != nil && ip.IsLoopback()
}

// allowed are the names that a Host header may have.
func (f *listenFlags) allowed() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, f.hosts...)
	if ip := net.ParseIP(f.host); ip == nil || !ip.IsUnspecified() {
		return append(names, f.host)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return names // the loopback names stay, and those that were given
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			names = append(names, n.IP.String())
		}
	}
	return names
}

// url is where clients find the server.
func (f *listenFlags) url(l net.Listener) string {
	if f.unix != "" {
		return "the socket " + f.unix
	}
	return f.base(l) + f.fingerprintNote
}

// base is the address before the path of a route.
func (f *listenFlags) base(l net.Listener) string {
	switch {
	case f.unix != "":
		return "http://localhost"
	case f.certFile != "" || f.selfSigned:
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// listen opens the door.
func (a *app) listen(ctx context.Context, f *listenFlags) (net.Listener, error) {
	if (f.certFile == "") != (f.key == "") || f.certFile != "" && f.selfSigned {
		return nil, flagError("tls-cert", "give --tls-cert and --tls-key, or --tls-self-signed",
			"a certificate has two files")
	}
	config, err := f.tls()
	if err != nil {
		return nil, err
	}
	network, address := "tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port))
	if f.unix != "" {
		network, address = "unix", f.unix
		if err := clearSocket(ctx, f.unix); err != nil {
			return nil, err
		}
	} else if !f.local() && config == nil {
		fmt.Fprintln(a.err, "note: others on the network can read what is not encrypted; "+
			"see --tls-self-signed")
	}
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, taken(address, err)
	case err != nil:
		return nil, flagError("host", "name an address of this machine and a port that you may use",
			"%w", err)
	}
	if f.unix != "" {
		if err := os.Chmod(f.unix, 0o600); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

func taken(address string, err error) error {
	return &infer.Error{
		Op: "listen", Kind: infer.KindBusy, Field: address,
		Hint: "another program listens there; choose another --port or --unix", Err: err,
	}
}

// clearSocket removes what a server that ended without a word left behind.
func clearSocket(ctx context.Context, path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && fi.Mode().Type() != fs.ModeSocket {
		return flagError("unix", "name a path that is free", "%s is a file", path)
	}
	var dial net.Dialer
	if c, err := dial.DialContext(ctx, "unix", path); err == nil {
		return taken(path, c.Close())
	}
	return os.Remove(path)
}

// tls gives the configuration of https, or nil without.
func (f *listenFlags) tls() (*tls.Config, error) {
	var cert tls.Certificate
	var err error
	switch {
	case f.selfSigned:
		if cert, err = selfSigned(f.allowed()); err != nil {
			return nil, err
		}
		f.fingerprintNote = fmt.Sprintf(" (SHA-256 of the certificate: %X)",
			sha256.Sum256(cert.Certificate[0]))
	case f.certFile != "":
		if cert, err = tls.LoadX509KeyPair(f.certFile, f.key); err != nil {
			return nil, flagError("tls-cert", "both are in PEM form, and belong together", "%w", err)
		}
	default:
		return nil, nil
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
	}, nil
}

// selfSignedLife is how long a certificate of our own is valid. It is made anew for each run.
const selfSignedLife = 90 * 24 * time.Hour

// selfSigned makes a certificate for names and addresses, signed by itself.
func selfSigned(names []string) (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return c, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "norion"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSignedLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
