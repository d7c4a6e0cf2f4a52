package sqlbus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"syscall"
)

// netMeaning says what to do about an error on the way to a server, or "".
func netMeaning(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "the host name can't be resolved; check it"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; check host and port, and that the server runs"
	case untrusted(err):
		return "the server's certificate is not accepted; name the CA that signed it and the host as it is in the certificate"
	}
	return ""
}

func untrusted(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var verification *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &verification)
}
