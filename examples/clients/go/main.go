// A client of Localplane in Go: lists the models, loads one, watches what it costs, asks it
// something, counts its tokens, stops it, and handles an error by its reason.
//
//	go run . [-address HOST:PORT] [-model NAME] [QUESTION]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	localplanev1 "localplane.dev/go/localplane/v1"
)

func main() {
	address := flag.String("address", "127.0.0.1:50051", "where the service listens for gRPC")
	model := flag.String("model", "", "model to use; the first one when left out")
	flag.Parse()
	question := strings.Join(flag.Args(), " ")
	if question == "" {
		question = "Say hello."
	}
	if err := run(*address, *model, question); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(address, model, question string) error {
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(apiKey(os.Getenv("LOCALPLANE_API_KEY"))),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	// Loading is what takes long. Every call needs some limit, or a lost server is waited for without end.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	backends := localplanev1.NewBackendServiceClient(connection)

	if model, err = pickModel(ctx, localplanev1.NewModelServiceClient(connection), model); err != nil {
		return err
	}
	loaded, err := backends.LoadModel(ctx, &localplanev1.LoadModelRequest{Model: model})
	if err != nil {
		return fmt.Errorf("load %s: %w", model, err)
	}
	fmt.Println("load:", loaded.GetMessage())
	if err := monitor(ctx, backends, model); err != nil {
		return err
	}
	if err := ask(ctx, localplanev1.NewInferenceServiceClient(connection), model, question); err != nil {
		return err
	}
	if err := countTokens(ctx, localplanev1.NewTokenMetricsServiceClient(connection), model); err != nil {
		return err
	}
	stopped, err := backends.ShutdownBackend(ctx, &localplanev1.ShutdownBackendRequest{Model: model})
	if err != nil {
		return fmt.Errorf("stop %s: %w", model, err)
	}
	fmt.Printf("stop: %s after %.2f s\n", stopped.GetMessage(), stopped.GetSeconds())

	// Messages are for people and may change. A program goes by the reason.
	_, err = backends.GetBackendStatus(ctx, &localplanev1.GetBackendStatusRequest{Model: model})
	if reason := reasonOf(err); reason != "MODEL_NOT_LOADED" {
		return fmt.Errorf("monitor a stopped model: expected MODEL_NOT_LOADED, got %q: %w", reason, err)
	}
	fmt.Println("monitor: MODEL_NOT_LOADED, as it should be now")
	return nil
}

// pickModel prints the models and returns the name of the one to use.
func pickModel(ctx context.Context, models localplanev1.ModelServiceClient, wanted string) (string, error) {
	listed, err := models.ListModels(ctx, &localplanev1.ListModelsRequest{})
	if err != nil {
		return "", fmt.Errorf("list models: %w", err)
	}
	for _, entry := range listed.GetData() {
		fmt.Println("model:", entry.GetId())
	}
	if wanted != "" {
		return wanted, nil
	}
	if len(listed.GetData()) == 0 {
		return "", errors.New("there is no model: localplane models install smollm2")
	}
	return listed.GetData()[0].GetId(), nil
}

// monitor prints what is known of the backend of a model.
func monitor(ctx context.Context, backends localplanev1.BackendServiceClient, model string) error {
	seen, err := backends.GetBackendStatus(ctx, &localplanev1.GetBackendStatusRequest{Model: model})
	if err != nil {
		return fmt.Errorf("monitor %s: %w", model, err)
	}
	fmt.Printf("monitor: %v, process %d\n", seen.GetState(), seen.GetPid())
	// What is not known is nil: a getter would make it 0.
	if seen.MemoryInfo != nil {
		fmt.Printf("monitor: %d MiB resident\n", seen.MemoryInfo.GetRss()>>20)
	}
	return nil
}

// ask prints the answer to a question as it comes.
func ask(ctx context.Context, inference localplanev1.InferenceServiceClient, model, question string) error {
	stream, err := inference.ChatStream(ctx, &localplanev1.ChatRequest{
		Model: model,
		Messages: []*localplanev1.ChatMessage{
			{Role: "user", Content: structpb.NewStringValue(question)},
		},
		MaxTokens:     proto.Int32(64),
		StreamOptions: &localplanev1.StreamOptions{IncludeUsage: true},
	})
	if err != nil {
		return fmt.Errorf("ask %s: %w", model, err)
	}
	fmt.Print("answer: ")
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask %s: %w", model, err)
		}
		for _, choice := range chunk.GetChoices() {
			fmt.Print(choice.GetDelta().GetContent())
		}
		if usage := chunk.GetUsage(); usage != nil {
			fmt.Printf("\nusage: %d tokens of the prompt, %d generated\n",
				usage.GetPromptTokens(), usage.GetCompletionTokens())
		}
	}
}

// countTokens prints how many tokens went through a model.
func countTokens(ctx context.Context, tokens localplanev1.TokenMetricsServiceClient, model string) error {
	counted, err := tokens.GetTokenMetrics(ctx, &localplanev1.GetTokenMetricsRequest{Model: model})
	if status.Code(err) == codes.Unimplemented {
		fmt.Println("tokens: this service is too old to count them")
		return nil
	}
	if err != nil {
		return fmt.Errorf("count tokens of %s: %w", model, err)
	}
	fmt.Printf("tokens: %d generated at %.1f per second, %d since %s\n",
		counted.GetTokensGenerated(), counted.GetTokensPerSecond(),
		counted.GetTotal().GetCompletionTokens(), counted.GetEpoch().AsTime().Format(time.RFC3339))
	return nil
}

// reasonOf returns the reason that the service gives for an error, or "" for all else, such as a lost connection.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// apiKey is sent with every call. A service on loopback wants none unless it was given some.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if key == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

// RequireTransportSecurity says that the key may go over a plain connection: this one stays on the machine.
func (apiKey) RequireTransportSecurity() bool { return false }
