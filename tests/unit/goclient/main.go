// Calls each method given on the command line with an empty message, through grpc-go as the
// sidecars and the kubelet use it, and prints "<method> <code> <text>" for each.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// raw passes bytes through, so that no generated CSI code is needed.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (raw) Name() string                       { return "proto" }

func main() {
	conn, err := grpc.NewClient("unix://"+os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer conn.Close()
	for _, method := range os.Args[2:] {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		request, reply := []byte{}, []byte{}
		err := conn.Invoke(ctx, method, &request, &reply)
		cancel()
		fmt.Println(method, status.Code(err), status.Convert(err).Message())
	}
}
