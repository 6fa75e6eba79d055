// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// network has the addresses of the simulated kubelets: a /16, whose addresses are all local.
var network = netip.MustParsePrefix("10.77.0.0/16")

// addressOf returns the address of a kubelet.
func addressOf(i int) netip.Addr {
	bytes := network.Addr().As4()
	bytes[2], bytes[3] = byte(i/250), byte(1+i%250)
	return netip.AddrFrom4(bytes)
}

// addLocalAddresses brings up the loopback interface and gives it the network. The kernel treats all addresses of a
// network on that interface as local (Linux net/ipv4/fib_frontend.c, fib_add_ifaddr).
func addLocalAddresses() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, up); err != nil {
		return err
	}
	for _, set := range []struct {
		request uint
		address [4]byte
	}{
		{unix.SIOCSIFADDR, network.Addr().Next().As4()},
		{unix.SIOCSIFNETMASK, [4]byte{255, 255, 0, 0}},
	} {
		request, err := unix.NewIfreq("lo:1")
		if err != nil {
			return err
		}
		if err := request.SetInet4Addr(set.address[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(socket, set.request, request); err != nil {
			return err
		}
	}
	return nil
}
