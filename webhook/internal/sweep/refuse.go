// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"net/netip"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
)

// Refuse says why no connection to an address may be made. It is empty if one may. services are the cluster's ranges
// for Services.
func Refuse(address netip.Addr, services []netip.Prefix) string {
	what := handshake.Refuse(address, services)
	switch {
	case what == "":
		return ""
	case !address.IsValid():
		return "the address is not valid"
	}
	return "its address " + handshake.Plain(address).String() + " is in a range in which no kubelet is: " + what
}
