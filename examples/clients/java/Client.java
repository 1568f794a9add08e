// A client of hivefold with grpc-java: copy this file and change main.
//
// Run in the repository's root with the addresses of the coordinators, commas between, and the name of a model: it
// prints one JSON object. The packages io.hivefold are made from the protos: README.md.
import com.google.gson.Gson;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.hivefold.inference.GRPCInferenceServiceGrpc;
import io.hivefold.inference.ModelInferRequest;
import io.hivefold.inference.ModelMetadataRequest;
import io.hivefold.v1.FleetServiceGrpc;
import io.hivefold.v1.GetJobRequest;
import io.hivefold.v1.JobEvent;
import io.hivefold.v1.JobEventType;
import io.hivefold.v1.JobServiceGrpc;
import io.hivefold.v1.JobSpec;
import io.hivefold.v1.ListNodesRequest;
import io.hivefold.v1.Node;
import io.hivefold.v1.NodeState;
import io.hivefold.v1.ProbeSpec;
import io.hivefold.v1.SubmitJobRequest;
import io.hivefold.v1.WatchJobRequest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

public final class Client {
  static final long DEADLINE_S = 10; // of each call, all its tries together
  static final long PATIENCE_NS = 30_000_000_000L; // how long a leader is looked for, and a watch is without an event
  static final long PAUSE_MS = 500;
  static final Path SERVICE_CONFIG = Path.of("hivefold/rpc/service_config.json");
  static final Set<JobEventType> FINAL =
      EnumSet.of(
          JobEventType.JOB_EVENT_TYPE_SUCCEEDED,
          JobEventType.JOB_EVENT_TYPE_FAILED,
          JobEventType.JOB_EVENT_TYPE_CANCELLED);

  /** The reason and what belongs to it, from the google.rpc.Status in the trailing metadata; empty without one. */
  static ErrorInfo errorInfo(StatusRuntimeException error) {
    var status = StatusProto.fromThrowable(error);
    try {
      for (var detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) return detail.unpack(ErrorInfo.class);
      }
    } catch (InvalidProtocolBufferException malformed) {
      // as without one
    }
    return ErrorInfo.getDefaultInstance();
  }

  /** The stub with the deadline of one call. */
  static <S extends AbstractStub<S>> S timed(S stub) {
    return stub.withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS);
  }

  record Listed(List<Node> nodes, int pages) {}

  record Watched(List<JobEvent> events, int cuts) {}

  /** The coordinators: calls go to the one that leads, also after it changed. */
  static final class Fleet implements AutoCloseable {
    private final List<String> addresses;
    private final Map<String, ?> serviceConfig;
    private final Map<String, ManagedChannel> channels = new HashMap<>();
    String target;

    @SuppressWarnings("unchecked")
    Fleet(List<String> addresses) throws IOException {
      this.addresses = addresses;
      target = addresses.get(0);
      serviceConfig = new Gson().fromJson(Files.readString(SERVICE_CONFIG), Map.class);
    }

    /** The channel to an address, with the fleet's own rules on which calls are tried again, and how. */
    ManagedChannel channel(String address) {
      return channels.computeIfAbsent(
          address,
          at ->
              NettyChannelBuilder.forTarget(at)
                  .usePlaintext()
                  .proxyDetector(server -> null)
                  .defaultServiceConfig(serviceConfig)
                  .keepAliveTime(60, TimeUnit.SECONDS)
                  .keepAliveTimeout(10, TimeUnit.SECONDS)
                  .build());
    }

    /** Goes to the leader that the error names, else to the next coordinator; throws what is no matter of leading. */
    void turn(StatusRuntimeException error) throws InterruptedException {
      if (error.getStatus().getCode() != Status.Code.UNAVAILABLE) throw error;
      var leader = errorInfo(error).getMetadataOrDefault("leader", "");
      if (!leader.isEmpty() && !leader.equals(target)) {
        target = leader;
        return;
      }
      Thread.sleep(PAUSE_MS);
      target = addresses.get((addresses.indexOf(target) + 1) % addresses.size());
    }

    /** The answer of the coordinator that leads. Mutating requests carry a request_id: sent twice, recorded once. */
    <A> A call(Function<Channel, A> send) throws InterruptedException {
      var began = System.nanoTime();
      while (true) {
        try {
          return send.apply(channel(target));
        } catch (StatusRuntimeException error) {
          if (System.nanoTime() - began > PATIENCE_NS) throw error;
          turn(error);
        }
      }
    }

    /** All nodes and the number of pages that they were on, one call a page. */
    Listed nodes(int pageSize) throws InterruptedException {
      var nodes = new ArrayList<Node>();
      var request = ListNodesRequest.newBuilder().setPageSize(pageSize);
      for (int pages = 1; ; pages++) {
        var answer = call(channel -> timed(FleetServiceGrpc.newBlockingStub(channel)).listNodes(request.build()));
        nodes.addAll(answer.getNodesList());
        if (answer.getNextPageToken().isEmpty()) return new Listed(nodes, pages);
        request.setPageToken(answer.getNextPageToken());
      }
    }

    /** Every event of a job, once and in order, and how often the watch was cut; it goes on after each cut. */
    Watched watch(String jobId) throws InterruptedException {
      var events = new ArrayList<JobEvent>();
      var alive = System.nanoTime();
      for (int cuts = 0; ; cuts++) {
        int before = events.size();
        try {
          follow(jobId, events);
          return new Watched(events, cuts);
        } catch (StatusRuntimeException error) {
          if (events.size() > before) {
            alive = System.nanoTime();
            if (FINAL.contains(events.get(events.size() - 1).getType())) return new Watched(events, cuts);
          }
          if (System.nanoTime() - alive > PATIENCE_NS) throw error;
          turn(error);
        }
      }
    }

    /** Appends the events that come after those, until the final one or a cut. */
    private void follow(String jobId, List<JobEvent> events) {
      var request = WatchJobRequest.newBuilder().setJobId(jobId);
      // A response holds all events of one position of the log: a cut never falls between them.
      if (!events.isEmpty()) request.setAfterSequence(events.get(events.size() - 1).getSequence());
      var responses = JobServiceGrpc.newBlockingStub(channel(target)).watchJob(request.build());
      while (responses.hasNext()) events.addAll(responses.next().getEventsList());
    }

    @Override
    public void close() {
      channels.values().forEach(ManagedChannel::shutdownNow);
    }
  }

  /** The first output for one row of 1, 2, 3, ... of a model of one FP32 input, by the Open Inference Protocol. */
  static List<Float> infer(Channel channel, String model) {
    var ask = ModelMetadataRequest.newBuilder().setName(model).build();
    var takes = timed(GRPCInferenceServiceGrpc.newBlockingStub(channel)).modelMetadata(ask).getInputs(0);
    var shape = takes.getShapeList().stream().map(size -> Math.max(size, 1)).toList(); // -1: any size
    int count = shape.stream().mapToInt(Long::intValue).reduce(1, Math::multiplyExact);
    var raw = ByteBuffer.allocate(4 * count).order(ByteOrder.LITTLE_ENDIAN);
    for (int value = 1; value <= count; value++) raw.putFloat(value);
    var input =
        ModelInferRequest.InferInputTensor.newBuilder()
            .setName(takes.getName())
            .setDatatype("FP32")
            .addAllShape(shape);
    var request =
        ModelInferRequest.newBuilder()
            .setModelName(model)
            .addInputs(input)
            .addRawInputContents(ByteString.copyFrom(raw.flip()))
            .build();
    var answer = timed(GRPCInferenceServiceGrpc.newBlockingStub(channel)).modelInfer(request);
    var output = answer.getRawOutputContents(0).asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    var values = new ArrayList<Float>();
    while (output.hasRemaining()) values.add(output.getFloat());
    return values;
  }

  static SubmitJobRequest submission() {
    var probe =
        ProbeSpec.newBuilder().setTaskCount(24).setTaskDuration(Duration.newBuilder().setNanos(250_000_000));
    var spec =
        JobSpec.newBuilder()
            .setProbe(probe)
            .setSource("examples/clients/java")
            .setTimeout(Duration.newBuilder().setSeconds(120)); // the job's own deadline
    return SubmitJobRequest.newBuilder().setRequestId(UUID.randomUUID().toString()).setSpec(spec).build();
  }

  public static void main(String[] arguments) throws Exception {
    try (var fleet = new Fleet(List.of(arguments[0].split(",")))) {
      var alive = HealthCheckRequest.getDefaultInstance();
      var health = fleet.call(channel -> timed(HealthGrpc.newBlockingStub(channel)).check(alive));
      var listed = fleet.nodes(1);

      var submission = submission();
      var job = fleet.call(channel -> timed(JobServiceGrpc.newBlockingStub(channel)).submitJob(submission)).getJob();
      var again = fleet.call(channel -> timed(JobServiceGrpc.newBlockingStub(channel)).submitJob(submission)).getJob();
      System.err.println("submitted " + job.getJobId());
      var watched = fleet.watch(job.getJobId());
      var events = watched.events();

      var refused = ErrorInfo.getDefaultInstance();
      try {
        var unknown = GetJobRequest.newBuilder().setJobId("no-such-job").build();
        fleet.call(channel -> timed(JobServiceGrpc.newBlockingStub(channel)).getJob(unknown));
      } catch (StatusRuntimeException error) {
        refused = errorInfo(error);
      }

      var online = listed.nodes().stream().filter(node -> node.getState() == NodeState.NODE_STATE_ONLINE).findFirst();
      var found = new LinkedHashMap<String, Object>();
      found.put("health", health.getStatus().name());
      found.put("nodes", listed.nodes().stream().map(node -> node.getSpec().getNodeId()).toList());
      found.put("pages", listed.pages());
      found.put("job", job.getJobId());
      found.put("same_job", job.getJobId().equals(again.getJobId()));
      found.put("sequences", events.stream().map(JobEvent::getSequence).toList());
      found.put("cuts", watched.cuts());
      found.put("state", events.get(events.size() - 1).getJob().getState().name());
      found.put("leader", fleet.target);
      found.put("refused", Map.of("reason", refused.getReason(), "metadata", refused.getMetadataMap()));
      found.put("outputs", infer(fleet.channel(online.orElseThrow().getSpec().getGrpcAddress()), arguments[1]));
      System.out.println(new Gson().toJson(found));
    }
  }
}
