// SPDX-License-Identifier: Apache-2.0

// Command prober runs in the pods of the node test and reports what a pod can see. As
// `prober URL` it is a client of another prober.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"

	fetchTimeout = 5 * time.Second
	maxAnswer    = 1 << 20 // bytes
)

func main() {
	if len(os.Args) > 1 {
		body, err := fetch(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(body)
		return
	}
	fmt.Println("serving")
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		answer(w, string(data), err)
	})
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		answer(w, "written", os.WriteFile(r.FormValue("path"), nil, 0o600))
	})
	http.HandleFunc("/fetch", func(w http.ResponseWriter, r *http.Request) {
		body, err := fetch(r.FormValue("url"))
		answer(w, body, err)
	})
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { answer(w, "ready", nil) })
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
	os.Exit(1)
}

// answer always has status 200, because kubectl hides the text of errors.
func answer(w io.Writer, body string, err error) {
	if err != nil {
		body = err.Error()
	}
	fmt.Fprint(w, body)
}

// fetch uses the ServiceAccount of the pod if it has one.
func fetch(url string) (string, error) {
	roots := x509.NewCertPool()
	if authority, err := os.ReadFile(account + "ca.crt"); err == nil {
		roots.AppendCertsFromPEM(authority)
	}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token, err := os.ReadFile(account + "token"); err == nil {
		request.Header.Set("Authorization", "Bearer "+string(token))
	}
	client := http.Client{Timeout: fetchTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return fmt.Sprintf("%d %s", response.StatusCode, body), err
}
