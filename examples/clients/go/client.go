// A client of hivefold with google.golang.org/grpc: copy this file and change main.
//
// Run in the repository's root with the addresses of the coordinators, commas between, and the name of a model: it
// prints one JSON object. The packages below gen/go are made from the protos: README.md.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	pb "github.com/hivefold/hivefold/gen/go/hivefold/v1"
	"github.com/hivefold/hivefold/gen/go/inference"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	deadline      = 10 * time.Second // of each call, all its tries together
	patience      = 30 * time.Second // how long a leader is looked for, and a watch may be without an event
	pause         = 500 * time.Millisecond
	serviceConfig = "hivefold/rpc/service_config.json"
)

// errorInfo gives the reason and what belongs to it, from the google.rpc.Status in the trailing metadata.
func errorInfo(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return &errdetails.ErrorInfo{}
}

// fleet is the coordinators: calls go to the one that leads, also after it changed.
type fleet struct {
	addresses []string
	config    string
	channels  map[string]*grpc.ClientConn
	target    string
}

// channel gives the channel to an address, with the fleet's own rules on which calls are tried again, and how.
func (f *fleet) channel(address string) (*grpc.ClientConn, error) {
	if channel, ok := f.channels[address]; ok {
		return channel, nil
	}
	channel, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(f.config),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 10 * time.Second}),
		grpc.WithNoProxy(),
	)
	if err == nil {
		f.channels[address] = channel
	}
	return channel, err
}

// turn goes to the leader that the error names, else to the next coordinator; gives back what is no matter of leading.
func (f *fleet) turn(err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	if leader := errorInfo(err).GetMetadata()["leader"]; leader != "" && leader != f.target {
		f.target = leader
		return nil
	}
	time.Sleep(pause)
	f.target = f.addresses[(slices.Index(f.addresses, f.target)+1)%len(f.addresses)]
	return nil
}

// call gives the answer of the coordinator that leads. Mutating requests carry a request_id: sent twice, recorded once.
func call[Request, Answer any](
	f *fleet,
	send func(context.Context, *grpc.ClientConn, Request) (Answer, error),
	request Request,
) (Answer, error) {
	until := time.Now().Add(patience)
	for {
		channel, err := f.channel(f.target)
		if err != nil {
			return *new(Answer), err
		}
		answer, err := once(channel, send, request)
		if err == nil {
			return answer, nil
		}
		if time.Now().After(until) {
			return answer, err
		}
		if err := f.turn(err); err != nil {
			return answer, err
		}
	}
}

// once gives one answer to one request, within the deadline.
func once[Request, Answer any](
	channel *grpc.ClientConn,
	send func(context.Context, *grpc.ClientConn, Request) (Answer, error),
	request Request,
) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return send(ctx, channel, request)
}

func check(ctx context.Context, c *grpc.ClientConn, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return grpc_health_v1.NewHealthClient(c).Check(ctx, r)
}

func listNodes(ctx context.Context, c *grpc.ClientConn, r *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	return pb.NewFleetServiceClient(c).ListNodes(ctx, r)
}

func submitJob(ctx context.Context, c *grpc.ClientConn, r *pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
	return pb.NewJobServiceClient(c).SubmitJob(ctx, r)
}

func getJob(ctx context.Context, c *grpc.ClientConn, r *pb.GetJobRequest) (*pb.GetJobResponse, error) {
	return pb.NewJobServiceClient(c).GetJob(ctx, r)
}

// nodes gives all nodes and the number of pages that they were on, one call a page.
func (f *fleet) nodes(pageSize uint32) (nodes []*pb.Node, pages int, err error) {
	request := &pb.ListNodesRequest{PageSize: pageSize}
	for {
		answer, err := call(f, listNodes, request)
		if err != nil {
			return nil, 0, err
		}
		nodes, pages = append(nodes, answer.GetNodes()...), pages+1
		if request.PageToken = answer.GetNextPageToken(); request.PageToken == "" {
			return nodes, pages, nil
		}
	}
}

// watch gives every event of a job, once and in order, and how often it was cut; it goes on after each cut.
func (f *fleet) watch(jobID string) (events []*pb.JobEvent, cuts int, err error) {
	until := time.Now().Add(patience)
	for {
		before := len(events)
		events, err = f.follow(jobID, events)
		if err == nil {
			return events, cuts, nil
		}
		if len(events) > before {
			until = time.Now().Add(patience)
		}
		if time.Now().After(until) {
			return events, cuts, err
		}
		cuts++
		if err := f.turn(err); err != nil {
			return events, cuts, err
		}
	}
}

// follow appends the events that come after those, until the final one or a cut.
func (f *fleet) follow(jobID string, events []*pb.JobEvent) ([]*pb.JobEvent, error) {
	channel, err := f.channel(f.target)
	if err != nil {
		return events, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request := &pb.WatchJobRequest{JobId: jobID}
	if len(events) > 0 {
		// A response holds all events of one position of the log: a cut never falls between them.
		request.AfterSequence = events[len(events)-1].GetSequence()
	}
	stream, err := pb.NewJobServiceClient(channel).WatchJob(ctx, request)
	if err != nil {
		return events, err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		for _, event := range response.GetEvents() {
			events = append(events, event)
			switch event.GetType() {
			case pb.JobEventType_JOB_EVENT_TYPE_SUCCEEDED,
				pb.JobEventType_JOB_EVENT_TYPE_FAILED,
				pb.JobEventType_JOB_EVENT_TYPE_CANCELLED:
				return events, nil
			}
		}
	}
}

// infer gives the first output for one row of 1, 2, 3, ... of a model of one FP32 input, by the Open Inference Protocol.
func infer(channel *grpc.ClientConn, model string) ([]float32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	client := inference.NewGRPCInferenceServiceClient(channel)
	metadata, err := client.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: model})
	if err != nil {
		return nil, err
	}
	takes, count := metadata.GetInputs()[0], int64(1)
	shape := slices.Clone(takes.GetShape())
	for axis, size := range shape {
		shape[axis] = max(size, 1) // -1: any size
		count *= shape[axis]
	}
	var raw bytes.Buffer
	for value := int64(1); value <= count; value++ {
		_ = binary.Write(&raw, binary.LittleEndian, float32(value)) // a buffer in memory takes all
	}
	answer, err := client.ModelInfer(ctx, &inference.ModelInferRequest{
		ModelName:        model,
		Inputs:           []*inference.ModelInferRequest_InferInputTensor{{Name: takes.GetName(), Datatype: "FP32", Shape: shape}},
		RawInputContents: [][]byte{raw.Bytes()},
	})
	if err != nil {
		return nil, err
	}
	output := answer.GetRawOutputContents()[0]
	values := make([]float32, len(output)/4)
	return values, binary.Read(bytes.NewReader(output), binary.LittleEndian, values)
}

func run(addresses, model string) error {
	config, err := os.ReadFile(serviceConfig)
	if err != nil {
		return err
	}
	known := strings.Split(addresses, ",")
	f := &fleet{addresses: known, config: string(config), channels: map[string]*grpc.ClientConn{}, target: known[0]}

	health, err := call(f, check, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	nodes, pages, err := f.nodes(1)
	if err != nil {
		return err
	}
	submission := &pb.SubmitJobRequest{
		RequestId: rand.Text(),
		Spec: &pb.JobSpec{
			Kind: &pb.JobSpec_Probe{
				Probe: &pb.ProbeSpec{TaskCount: 24, TaskDuration: durationpb.New(250 * time.Millisecond)},
			},
			Source:  "examples/clients/go",
			Timeout: durationpb.New(2 * time.Minute), // the job's own deadline
		},
	}
	submitted, err := call(f, submitJob, submission)
	if err != nil {
		return err
	}
	again, err := call(f, submitJob, submission)
	if err != nil {
		return err
	}
	job := submitted.GetJob()
	fmt.Fprintln(os.Stderr, "submitted", job.GetJobId())
	events, cuts, err := f.watch(job.GetJobId())
	if err != nil {
		return err
	}

	_, refusal := call(f, getJob, &pb.GetJobRequest{JobId: "no-such-job"})
	refused := errorInfo(refusal)

	online := slices.IndexFunc(nodes, func(node *pb.Node) bool { return node.GetState() == pb.NodeState_NODE_STATE_ONLINE })
	if online < 0 {
		return errors.New("no node is online")
	}
	channel, err := f.channel(nodes[online].GetSpec().GetGrpcAddress())
	if err != nil {
		return err
	}
	outputs, err := infer(channel, model)
	if err != nil {
		return err
	}

	var nodeIDs []string
	for _, node := range nodes {
		nodeIDs = append(nodeIDs, node.GetSpec().GetNodeId())
	}
	var sequences []uint64
	for _, event := range events {
		sequences = append(sequences, event.GetSequence())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"health":    health.GetStatus().String(),
		"nodes":     nodeIDs,
		"pages":     pages,
		"job":       job.GetJobId(),
		"same_job":  job.GetJobId() == again.GetJob().GetJobId(),
		"sequences": sequences,
		"cuts":      cuts,
		"state":     events[len(events)-1].GetJob().GetState().String(),
		"leader":    f.target,
		"refused":   map[string]any{"reason": refused.GetReason(), "metadata": refused.GetMetadata()},
		"outputs":   outputs,
	})
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
