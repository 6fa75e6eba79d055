// SPDX-License-Identifier: Apache-2.0

package handshake

import (
	"net/netip"
	"syscall"
)

// refusedRange is a range in which no server of a cluster is, that [netip.Addr] does not know.
type refusedRange struct {
	prefix netip.Prefix
	what   string
}

// refusedRanges has the metadata services of clouds outside the link-local ranges, what is left of the special ranges,
// and the ranges in which an IPv6 address contains an IPv4 address that packets may be sent to.
//
//   - Amazon: docs.aws.amazon.com, whitepaper "IPv6 on AWS", "Supporting Amazon VPC services" (metadata ::254, DNS
//     ::253, time ::123); EKS Pod Identity has ::23.
//   - Alibaba: alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata.
//   - Oracle: 192.0.0.192 of its first generation, fd00:c1::a9fe:a9fe of OCI.
//   - Google: fd20:ce::254 of IPv6-only instances.
//   - Azure: 168.63.129.16, "What is IP address 168.63.129.16".
//   - Scaleway: fd00:42::42.
func refusedRanges() []refusedRange {
	const metadata = "the metadata service of a cloud"
	return []refusedRange{
		{netip.MustParsePrefix("0.0.0.0/8"), "this network"}, // RFC 1122 3.2.1.3
		{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
		{netip.MustParsePrefix("fec0::/10"), "site-local"},            // RFC 3879
		{netip.MustParsePrefix("::/96"), "IPv4-compatible"},           // RFC 4291 2.5.5.1
		{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated"}, // RFC 2765 2.1
		{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},      // RFC 8215
		{netip.MustParsePrefix("2002::/16"), "6to4"},                  // RFC 3056 2
		{netip.MustParsePrefix("2001::/32"), "Teredo"},                // RFC 4380 2.6
		{netip.MustParsePrefix("fd00:ec2::/32"), metadata},
		{netip.MustParsePrefix("100.100.100.200/32"), metadata},
		{netip.MustParsePrefix("192.0.0.192/32"), metadata},
		{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), metadata},
		{netip.MustParsePrefix("fd20:ce::254/128"), metadata},
		{netip.MustParsePrefix("168.63.129.16/32"), metadata},
		{netip.MustParsePrefix("fd00:42::42/128"), metadata},
	}
}

// nat64 is the prefix that translators use for IPv4 addresses in IPv6 (RFC 6052 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Plain returns an address without its zone; an IPv4 address that is written as an IPv6 address becomes one.
func Plain(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if nat64.Contains(address) {
		bytes := address.As16()
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return address
}

// Refuse says in which range an address is to which no connection may be made: loopback, link-local, multicast and
// others in which no server of a cluster is, the metadata services of clouds, and services, the cluster's ranges for
// Services. It is empty if a connection may be made.
func Refuse(address netip.Addr, services []netip.Prefix) string {
	address = Plain(address)
	switch {
	case !address.IsValid():
		return "not valid"
	case address.IsLoopback():
		return "loopback"
	case address.IsUnspecified():
		return "unspecified"
	case address.IsLinkLocalUnicast():
		return "link-local"
	case address.IsMulticast():
		return "multicast"
	}
	for _, r := range refusedRanges() {
		if r.prefix.Contains(address) {
			return r.what
		}
	}
	for _, r := range services {
		if r.Contains(address) {
			return "Services of the cluster"
		}
	}
	return ""
}

// ControlOf returns a check of addresses at dial time. refuse says why an address is refused, and returns nothing if it
// is not.
func ControlOf(refuse func(netip.Addr) string) Control {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &RefusedError{Why: "its address is not an IP address"}
		}
		if why := refuse(to.Addr()); why != "" {
			return &RefusedError{Why: why}
		}
		return nil
	}
}
