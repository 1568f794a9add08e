// A load generator for unary calls with one fixed message: gRPC, or HTTP POST where a server speaks nothing else.
//
// Clients are closed loops with a connection each: the next call is made when the last is answered, or, with -rate,
// when its turn in the common pace has come. Prints one JSON object. Not a call is repeated.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const messageBytes = 64 << 20

// raw passes messages on as the bytes that they are.
type raw struct{}

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }
func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = data
	return nil
}
func (raw) Name() string { return "proto" }

// caller makes one call and says how many bytes came back.
type caller func(context.Context) (int, error)

func grpcCaller(target, method string, body []byte) (caller, error) {
	connection, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(1<<20),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}),
			grpc.MaxCallRecvMsgSize(messageBytes), grpc.MaxCallSendMsgSize(messageBytes)))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (int, error) {
		var answer []byte
		err := connection.Invoke(ctx, method, &body, &answer)
		return len(answer), err
	}, nil
}

func httpCaller(target, method, contentType string, body []byte) (caller, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}}
	return func(ctx context.Context) (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target+method, bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		request.Header.Set("Content-Type", contentType)
		response, err := client.Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		size, err := io.Copy(io.Discard, response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("HTTP status %d", response.StatusCode)
		}
		return int(size), err
	}, nil
}

// tally is what one client saw; only calls that began after the warm-up count.
type tally struct {
	times  []time.Duration
	failed int
	words  string
	bytes  int
}

// drive repeats a call until the end. With a pace, call i of this client is due at first + i * every.
func drive(call caller, begin, end time.Time, first time.Time, every time.Duration) tally {
	var seen tally
	due := first
	for {
		now := time.Now()
		if every > 0 {
			if due.After(now) {
				time.Sleep(due.Sub(now))
			}
			now = due // what a late call waited for its turn is part of its time
			due = due.Add(every)
		}
		if !now.Before(end) {
			return seen
		}
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		size, err := call(ctx)
		cancel()
		took := time.Since(now)
		switch {
		case err != nil:
			seen.failed++
			seen.words = err.Error()
			time.Sleep(time.Millisecond)
		case now.After(begin):
			seen.times = append(seen.times, took)
			seen.bytes = size
		}
	}
}

func main() {
	protocol := flag.String("protocol", "grpc", "grpc or http")
	target := flag.String("target", "", "host:port")
	method := flag.String("method", "", "full method name, or path")
	contentType := flag.String("content-type", "application/octet-stream", "of an HTTP request")
	file := flag.String("body", "", "file with the message")
	clients := flag.Int("clients", 1, "closed loops, each with a connection")
	seconds := flag.Float64("seconds", 2, "measured time")
	warm := flag.Float64("warm", 0.5, "time before that")
	rate := flag.Float64("rate", 0, "calls a second in all; 0: as many as are answered")
	threads := flag.Int("threads", 0, "processors that this program uses at once; 0: all")
	flag.Parse()
	if *threads > 0 {
		runtime.GOMAXPROCS(*threads)
	}
	body, err := os.ReadFile(*file)
	callers := make([]caller, *clients)
	for i := range callers {
		if err == nil && *protocol == "grpc" {
			callers[i], err = grpcCaller(*target, *method, body)
		} else if err == nil {
			callers[i], err = httpCaller(*target, *method, *contentType, body)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	connect(callers)

	var every time.Duration
	if *rate > 0 {
		every = time.Duration(float64(*clients) / *rate * float64(time.Second))
	}
	start := time.Now()
	begin := start.Add(time.Duration(*warm * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	seen := make([]tally, *clients)
	var group sync.WaitGroup
	for i := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			first := start.Add(every * time.Duration(i) / time.Duration(*clients))
			seen[i] = drive(callers[i], begin, end, first, every)
		}()
	}
	group.Wait()
	report(seen, time.Since(begin))
}

// connect makes one call of each client, a few at a time: connections are not what is measured.
func connect(callers []caller) {
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, call := range callers {
		group.Add(1)
		places <- struct{}{}
		go func() {
			defer group.Done()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			_, _ = call(ctx)
			<-places
		}()
	}
	group.Wait()
}

func report(seen []tally, took time.Duration) {
	var all []time.Duration
	failed, size, words := 0, 0, ""
	for _, one := range seen {
		all = append(all, one.times...)
		failed += one.failed
		size = max(size, one.bytes)
		if one.words != "" {
			words = one.words
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	quantile := func(share float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[min(len(all)-1, int(share*float64(len(all))))].Microseconds()) / 1000
	}
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"calls": len(all), "failed": failed, "error": words, "seconds": took.Seconds(),
		"rate": float64(len(all)) / took.Seconds(), "bytes": size, "cpu_s": cpu.Seconds(),
		"p50_ms": quantile(0.5), "p90_ms": quantile(0.9), "p99_ms": quantile(0.99), "max_ms": quantile(1),
	})
}
