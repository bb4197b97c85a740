// The original design: a bootstrap in Go on AWS's own client, which starts Deno, asks every 20 ms whether
// its server is there, and sends it each event over HTTP on TCP.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	listener.Close()
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Env = append(os.Environ(), "PORT="+port)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		panic(err)
	}
	address := "http://127.0.0.1:" + port + "/"
	for {
		if response, err := http.Get(address); err == nil {
			response.Body.Close()
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	lambda.Start(func(ctx context.Context, event json.RawMessage) (json.RawMessage, error) {
		request, err := http.NewRequestWithContext(ctx, "POST", address, bytes.NewReader(event))
		if err != nil {
			return nil, err
		}
		if known, ok := lambdacontext.FromContext(ctx); ok {
			request.Header.Set("lambda-runtime-aws-request-id", known.AwsRequestID)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		return io.ReadAll(response.Body)
	})
}
