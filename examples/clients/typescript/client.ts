// A client of hivefold with @grpc/grpc-js: copy this file and change `main`. Runs as it is with Node 22.18 or newer.
//
// Run in the repository's root with the addresses of the coordinators, commas between, and the name of a model: it
// prints one JSON object.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const PROTO_ROOTS = ["protos", "examples/clients/protos"];
const OPTIONS = {
  "grpc.service_config": readFileSync("hivefold/rpc/service_config.json", "utf8"),
  "grpc.keepalive_time_ms": 60_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.enable_http_proxy": 0,
};
const DEADLINE_MS = 10_000; // of each call, all its tries together
const PATIENCE_MS = 30_000; // how long a leader is looked for, and how long a watch may be without an event
const PAUSE_MS = 500;
const FINAL = ["JOB_EVENT_TYPE_SUCCEEDED", "JOB_EVENT_TYPE_FAILED", "JOB_EVENT_TYPE_CANCELLED"];

const definition = loadSync(
  [
    "hivefold/v1/job_service.proto",
    "hivefold/v1/fleet_service.proto",
    "inference/open_inference.proto",
    "health.proto",
    "error_details.proto",
  ],
  { includeDirs: PROTO_ROOTS, keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true },
);
const loaded: any = grpc.loadPackageDefinition(definition);
const { JobService, FleetService } = loaded.hivefold.v1;
const { GRPCInferenceService } = loaded.inference;
const { Health } = loaded.grpc.health.v1;

type ErrorInfo = { reason: string; metadata: Record<string, string> };
type Service = grpc.ServiceClientConstructor;

/** The reason and what belongs to it, from the google.rpc.Status in the trailing metadata; empty where there is none. */
function errorInfo(error: grpc.ServiceError): ErrorInfo {
  const [raw] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = raw ? decoded("google.rpc.Status", raw as Buffer).details : [];
  const found = details.find((detail: any) => detail.type_url.endsWith("/google.rpc.ErrorInfo"));
  return found ? decoded("google.rpc.ErrorInfo", found.value) : { reason: "", metadata: {} };
}

function decoded(type: string, bytes: Buffer): any {
  return (definition[type] as any).deserialize(bytes);
}

/** One answer to one request, within the deadline. */
function unary(client: any, method: string, request: object): Promise<any> {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + DEADLINE_MS;
    client[method](request, { deadline }, (error: unknown, answer: unknown) => (error ? reject(error) : resolve(answer)));
  });
}

/** The coordinators: calls go to the one that leads, also after it changed. */
class Fleet {
  private readonly clients = new Map<string, any>();
  private readonly addresses: string[];
  target: string;

  constructor(addresses: string[]) {
    this.addresses = addresses;
    this.target = addresses[0];
  }

  /** A service at an address, with the fleet's own rules on which calls are tried again, and how. */
  at(address: string, service: Service): any {
    const key = `${service.serviceName} ${address}`;
    if (!this.clients.has(key)) {
      this.clients.set(key, new service(address, grpc.credentials.createInsecure(), OPTIONS));
    }
    return this.clients.get(key);
  }

  /** Goes to the leader that the error names, else to the next coordinator; throws what is no matter of leading. */
  async turn(error: grpc.ServiceError): Promise<void> {
    if (error.code !== grpc.status.UNAVAILABLE) throw error;
    const { leader } = errorInfo(error).metadata;
    if (leader && leader !== this.target) {
      this.target = leader;
      return;
    }
    await sleep(PAUSE_MS);
    this.target = this.addresses[(this.addresses.indexOf(this.target) + 1) % this.addresses.length];
  }

  /** The answer of the coordinator that leads. Mutating requests carry a request_id: sent twice, recorded once. */
  async call(service: Service, method: string, request: object): Promise<any> {
    const until = Date.now() + PATIENCE_MS;
    while (true) {
      try {
        return await unary(this.at(this.target, service), method, request);
      } catch (error) {
        if (Date.now() > until) throw error;
        await this.turn(error as grpc.ServiceError);
      }
    }
  }

  /** All nodes with the number of the page that each was on, one call a page. */
  async *nodes(pageSize: number): AsyncGenerator<{ page: number; node: any }> {
    let page = 0;
    let token = "";
    do {
      page += 1;
      const answer = await this.call(FleetService, "ListNodes", { page_size: pageSize, page_token: token });
      for (const node of answer.nodes) yield { page, node };
      token = answer.next_page_token;
    } while (token);
  }

  /** Every event of a job, once and in order, with the number of cuts before it; goes on after each cut. */
  async *watch(jobId: string): AsyncGenerator<{ cuts: number; event: any }> {
    let seen = 0;
    let cuts = 0;
    let until = Date.now() + PATIENCE_MS;
    while (true) {
      const stream = this.at(this.target, JobService).WatchJob({ job_id: jobId, after_sequence: seen });
      try {
        for await (const { events } of stream) {
          for (const event of events) {
            yield { cuts, event };
            if (FINAL.includes(event.type)) return;
          }
          // A response holds all events of one position of the log: a cut never falls between them.
          seen = events.at(-1).sequence;
          until = Date.now() + PATIENCE_MS;
        }
        return;
      } catch (error) {
        if (Date.now() > until) throw error;
        cuts += 1;
        await this.turn(error as grpc.ServiceError);
      } finally {
        stream.cancel();
      }
    }
  }

  close(): void {
    for (const client of this.clients.values()) client.close();
  }
}

/** One row of 1, 2, 3, ... through a model of one FP32 input, by the Open Inference Protocol; its first output. */
async function infer(client: any, model: string): Promise<number[]> {
  const [takes] = (await unary(client, "ModelMetadata", { name: model })).inputs;
  const shape = takes.shape.map((size: number) => Math.max(size, 1)); // -1: any size
  const raw = Buffer.alloc(4 * shape.reduce((product: number, size: number) => product * size, 1));
  for (let at = 0; at < raw.length; at += 4) raw.writeFloatLE(at / 4 + 1, at);
  const inputs = [{ name: takes.name, datatype: "FP32", shape }];
  const answer = await unary(client, "ModelInfer", { model_name: model, inputs, raw_input_contents: [raw] });
  const output: Buffer = answer.raw_output_contents[0];
  return Array.from({ length: output.length / 4 }, (_, row) => output.readFloatLE(4 * row));
}

async function main(addresses: string, model: string): Promise<void> {
  const fleet = new Fleet(addresses.split(","));
  const health = await fleet.call(Health, "Check", {});
  const nodes = await Array.fromAsync(fleet.nodes(1));

  const submission = {
    request_id: randomUUID(),
    spec: {
      probe: { task_count: 24, task_duration: { nanos: 250_000_000 } },
      source: "examples/clients/typescript",
      timeout: { seconds: 120 }, // the job's own deadline
    },
  };
  const { job } = await fleet.call(JobService, "SubmitJob", submission);
  const again = await fleet.call(JobService, "SubmitJob", submission);
  console.error(`submitted ${job.job_id}`);
  const events = await Array.fromAsync(fleet.watch(job.job_id));

  const refused = await fleet.call(JobService, "GetJob", { job_id: "no-such-job" }).then(
    () => ({ reason: "", metadata: {} }),
    (error) => errorInfo(error),
  );

  const online = nodes.find(({ node }) => node.state === "NODE_STATE_ONLINE")!.node;
  const outputs = await infer(fleet.at(online.spec.grpc_address, GRPCInferenceService), model);
  const found = {
    health: health.status,
    nodes: nodes.map(({ node }) => node.spec.node_id),
    pages: nodes.at(-1)!.page,
    job: job.job_id,
    same_job: job.job_id === again.job.job_id,
    sequences: events.map(({ event }) => event.sequence),
    cuts: events.at(-1)!.cuts,
    state: events.at(-1)!.event.job.state,
    leader: fleet.target,
    refused: { reason: refused.reason, metadata: refused.metadata },
    outputs,
  };
  console.log(JSON.stringify(found));
  fleet.close();
}

await main(process.argv[2], process.argv[3]);
