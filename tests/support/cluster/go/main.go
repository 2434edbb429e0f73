// Command node is what Kubernetes runs on a node, in one program. It acts as the one whose name it is called
// by, as the control plane's programs do. Built by ../programs.py, for the cluster of the tests only.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	var command *cobra.Command
	switch name := filepath.Base(os.Args[0]); name {
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	default:
		fmt.Fprintf(os.Stderr, "%s is none of a node's programs\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}
