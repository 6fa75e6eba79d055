// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
)

// kubeconfig contains the certificate and the token, so it can be copied. No value needs
// quotes in YAML: they are a URL, base64 and hex digits.
func kubeconfig(server string, authority []byte, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: kubelet-https-guard
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: cluster-admin
  user:
    token: %s
contexts:
- name: kubelet-https-guard
  context:
    cluster: kubelet-https-guard
    user: cluster-admin
current-context: kubelet-https-guard
`, server, base64.StdEncoding.EncodeToString(authority), token)
}
