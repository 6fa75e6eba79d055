// SPDX-License-Identifier: Apache-2.0

package handshake

import (
	"errors"
	"net/netip"
	"testing"
)

// TestRefuse: in each refused range an address is refused, in every way to write it, and others are not.
func TestRefuse(t *testing.T) {
	services := []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd02::/112")}
	const metadata = "the metadata service of a cloud"
	for address, want := range map[string]string{
		"2001:1::7": "", "2003::7": "", "64:ff9b:2::7": "", "fe00::7": "",
		"192.0.2.7": "", "10.0.0.1": "", "2001:db8::7": "", "fd00::7": "", "100.64.0.1": "", "::ffff:192.0.2.7": "",
		"172.31.0.1": "", "192.0.0.193": "", "fd20:ce::253": "", "64:ff9b::c000:207": "",

		"127.0.0.1": "loopback", "127.255.1.2": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"64:ff9b::7f00:1": "loopback",
		"0.0.0.0":         "unspecified", "::": "unspecified", "::ffff:0.0.0.0": "unspecified", "0.1.2.3": "this network",
		"169.254.169.254": "link-local", "::ffff:169.254.169.254": "link-local", "fe80::1": "link-local",
		"fe80::1%eth0": "link-local", "64:ff9b::a9fe:a9fe": "link-local",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "ff0e::1%eth0": "multicast", "255.255.255.255": "broadcast",
		"172.30.0.1": "Services of the cluster", "::ffff:172.30.255.255": "Services of the cluster",
		"fd02::1":         "Services of the cluster",
		"100.100.100.200": metadata, "::ffff:100.100.100.200": metadata, "192.0.0.192": metadata,
		"fd00:ec2::254": metadata, "fd00:ec2::23": metadata, "fd20:ce::254": metadata, "fd00:c1::a9fe:a9fe": metadata,
		"2002:a9fe:a9fe::1": "6to4", "2002:7f00:1::": "6to4", "64:ff9b:1::a9fe:a9fe": "local NAT64",
		"64:ff9b:1:ffff::1": "local NAT64", "::7f00:1": "IPv4-compatible", "::a9fe:a9fe": "IPv4-compatible",
		"::ffff:0:169.254.169.254": "IPv4-translated", "2001:0:a9fe:a9fe::1": "Teredo", "fec0::1": "site-local",
		"feff::1%eth0":  "site-local",
		"168.63.129.16": metadata, "fd00:42::42": metadata, "64:ff9b::6464:64c8": metadata,
	} {
		if got := Refuse(netip.MustParseAddr(address), services); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	if Refuse(netip.Addr{}, nil) == "" {
		t.Error("the zero address is not refused")
	}
}

// TestControlOf: what is not an IP address is refused.
func TestControlOf(t *testing.T) {
	control := ControlOf(func(address netip.Addr) string { return Refuse(address, nil) })
	for address, refused := range map[string]bool{
		"192.0.2.7:10250": false, "[2001:db8::7]:10250": false, "127.0.0.1:10250": true, "[::1]:10250": true,
		"[::ffff:127.0.0.1]:10250": true, "[fe80::1%eth0]:10250": true, "name:10250": true, "": true,
	} {
		err := control("tcp", address, nil)
		if _, ok := errors.AsType[*RefusedError](err); ok != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}
