//! A client of hivefold with tonic: copy this file and change `run`.
//!
//! Run in the repository's root with the addresses of the coordinators, commas between, and the name of a model: it
//! prints one JSON object. The messages are made from the protos by build.rs.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

#[allow(dead_code, clippy::all)] // generated, and used in part
mod pb {
    include!(concat!(env!("OUT_DIR"), "/hivefold.v1.rs"));
}
#[allow(dead_code, clippy::all)] // generated, and used in part
mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}
#[allow(dead_code, clippy::all)] // generated, and used in part
mod rpc {
    include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
}
#[allow(dead_code, clippy::all)] // generated, and used in part
mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

const DEADLINE: Duration = Duration::from_secs(10); // of each call, all its tries together
const PATIENCE: Duration = Duration::from_secs(30); // how long a leader is looked for, and a watch may be without an event
const PAUSE: Duration = Duration::from_millis(500);
const SERVICE_CONFIG: &str = "hivefold/rpc/service_config.json";

/// The reason and what belongs to it, from the google.rpc.Status in the trailing metadata; empty without one.
fn error_info(error: &Status) -> rpc::ErrorInfo {
    let status = rpc::Status::decode(error.details()).unwrap_or_default();
    let found = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"));
    found.and_then(|detail| rpc::ErrorInfo::decode(detail.value.as_slice()).ok()).unwrap_or_default()
}

/// The fleet's own rules on how calls are tried again. tonic does not read them, other libraries do.
struct Retries {
    attempts: u64,
    first: Duration,
    most: Duration,
}

impl Retries {
    fn read() -> Result<Self, Box<dyn std::error::Error>> {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(SERVICE_CONFIG)?)?;
        let policy = &config["methodConfig"][0]["retryPolicy"];
        let wait = |name: &str| -> Result<Duration, Box<dyn std::error::Error>> {
            let text = policy[name].as_str().ok_or("the service config has no retryPolicy")?;
            Ok(Duration::from_secs_f64(text.trim_end_matches('s').parse()?))
        };
        let attempts = policy["maxAttempts"].as_u64().unwrap_or(1);
        Ok(Self { attempts, first: wait("initialBackoff")?, most: wait("maxBackoff")? })
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn stream<Q, A>(channel: Channel, path: &'static str, request: Request<Q>) -> Result<Streaming<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.server_streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

async fn once<Q, A>(channel: Channel, path: &'static str, message: Q, left: Duration) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut request = Request::new(message);
    request.set_timeout(left); // told to the server
    let answer = async {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(client.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    };
    let over = |_| Status::deadline_exceeded("no answer in time");
    tokio::time::timeout(left, answer).await.map_err(over)?
}

/// The coordinators: calls go to the one that leads, also after it changed.
struct Fleet {
    addresses: Vec<String>,
    retries: Retries,
    channels: HashMap<String, Channel>,
    target: String,
}

impl Fleet {
    fn channel(&mut self, address: &str) -> Result<Channel, Status> {
        if let Some(channel) = self.channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Status::invalid_argument(error.to_string()))?
            .http2_keep_alive_interval(Duration::from_secs(60))
            .keep_alive_timeout(Duration::from_secs(10));
        let channel = endpoint.connect_lazy();
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// One call within the deadline, tried again while the server is UNAVAILABLE and does not say that it is in vain.
    async fn tried<Q, A>(&mut self, address: &str, path: &'static str, message: &Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let (until, mut wait, mut attempt) = (Instant::now() + DEADLINE, self.retries.first, 1);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match once(self.channel(address)?, path, message.clone(), left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let vain = error.metadata().get("grpc-retry-pushback-ms").is_some_and(|value| value == "-1");
            if error.code() != Code::Unavailable || vain || attempt >= self.retries.attempts || left.is_zero() {
                return Err(error);
            }
            tokio::time::sleep(wait.mul_f64(0.8 + 0.4 * (random() as f64 / u64::MAX as f64))).await;
            wait = (wait * 2).min(self.retries.most);
            attempt += 1;
        }
    }

    /// Goes to the leader that the error names, else to the next coordinator; gives back what is no matter of leading.
    async fn turn(&mut self, error: Status) -> Result<(), Status> {
        if error.code() != Code::Unavailable {
            return Err(error);
        }
        if let Some(leader) = error_info(&error).metadata.remove("leader").filter(|leader| *leader != self.target) {
            self.target = leader;
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        let next = self.addresses.iter().position(|address| *address == self.target).map_or(0, |at| at + 1);
        self.target = self.addresses[next % self.addresses.len()].clone();
        Ok(())
    }

    /// The answer of the coordinator that leads. Mutating requests carry a request_id: sent twice, recorded once.
    async fn call<Q, A>(&mut self, path: &'static str, message: &Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            let target = self.target.clone();
            match self.tried(&target, path, message).await {
                Ok(answer) => return Ok(answer),
                Err(error) if Instant::now() > until => return Err(error),
                Err(error) => self.turn(error).await?,
            }
        }
    }

    /// All nodes and the number of pages that they were on, one call a page.
    async fn nodes(&mut self, page_size: u32) -> Result<(Vec<pb::Node>, u32), Status> {
        let (mut nodes, mut pages) = (Vec::new(), 0);
        let mut request = pb::ListNodesRequest { page_size, ..Default::default() };
        loop {
            let answer: pb::ListNodesResponse = self.call("/hivefold.v1.FleetService/ListNodes", &request).await?;
            nodes.extend(answer.nodes);
            pages += 1;
            if answer.next_page_token.is_empty() {
                return Ok((nodes, pages));
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// Every event of a job, once and in order, and how often the watch was cut; it goes on after each cut.
    async fn watch(&mut self, job_id: &str) -> Result<(Vec<pb::JobEvent>, u32), Status> {
        let (mut events, mut cuts, mut until) = (Vec::new(), 0, Instant::now() + PATIENCE);
        loop {
            let before = events.len();
            let Err(error) = self.follow(job_id, &mut events).await else {
                return Ok((events, cuts));
            };
            if events.len() > before {
                until = Instant::now() + PATIENCE;
            }
            if Instant::now() > until {
                return Err(error);
            }
            cuts += 1;
            self.turn(error).await?;
        }
    }

    /// Appends the events that come after those, until the final one or a cut.
    async fn follow(&mut self, job_id: &str, events: &mut Vec<pb::JobEvent>) -> Result<(), Status> {
        let target = self.target.clone();
        // A response holds all events of one position of the log: a cut never falls between them.
        let after_sequence = events.last().map_or(0, |event| event.sequence);
        let request = Request::new(pb::WatchJobRequest { job_id: job_id.to_owned(), after_sequence });
        let mut responses: Streaming<pb::WatchJobResponse> =
            stream(self.channel(&target)?, "/hivefold.v1.JobService/WatchJob", request).await.map_err(cut)?;
        while let Some(response) = responses.message().await.map_err(cut)? {
            for event in response.events {
                let kind = event.r#type();
                events.push(event);
                if matches!(kind, pb::JobEventType::Succeeded | pb::JobEventType::Failed | pb::JobEventType::Cancelled)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first output for one row of 1, 2, 3, ... of a model of one FP32 input, by the Open Inference Protocol.
    async fn infer(&mut self, node: &str, model: &str) -> Result<Vec<f32>, Status> {
        let ask = inference::ModelMetadataRequest { name: model.to_owned(), ..Default::default() };
        let metadata: inference::ModelMetadataResponse =
            self.tried(node, "/inference.GRPCInferenceService/ModelMetadata", &ask).await?;
        let takes = metadata.inputs.first().ok_or_else(|| Status::internal("the model has no input"))?;
        let shape: Vec<i64> = takes.shape.iter().map(|&size| size.max(1)).collect(); // -1: any size
        let count = shape.iter().product::<i64>();
        let request = inference::ModelInferRequest {
            model_name: model.to_owned(),
            inputs: vec![inference::model_infer_request::InferInputTensor {
                name: takes.name.clone(),
                datatype: "FP32".to_owned(),
                shape,
                ..Default::default()
            }],
            raw_input_contents: vec![(1..=count).flat_map(|value| (value as f32).to_le_bytes()).collect()],
            ..Default::default()
        };
        let answer: inference::ModelInferResponse =
            self.tried(node, "/inference.GRPCInferenceService/ModelInfer", &request).await?;
        let raw = answer.raw_output_contents.first().map_or(&[][..], Vec::as_slice);
        Ok(raw.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    }
}

/// tonic tells a connection that broke in mid stream as UNKNOWN: to go on elsewhere is right there too.
fn cut(error: Status) -> Status {
    match error.code() {
        Code::Unknown | Code::Internal if error.details().is_empty() => Status::unavailable(error.message()),
        _ => error,
    }
}

async fn run(addresses: &str, model: &str) -> Result<(), Box<dyn std::error::Error>> {
    let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
    let target = addresses[0].clone();
    let mut fleet = Fleet { addresses, retries: Retries::read()?, channels: HashMap::new(), target };

    let health: health::HealthCheckResponse =
        fleet.call("/grpc.health.v1.Health/Check", &health::HealthCheckRequest::default()).await?;
    let (nodes, pages) = fleet.nodes(1).await?;

    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let probe = pb::ProbeSpec { task_count: 24, task_duration: duration(0, 250_000_000) };
    let submission = pb::SubmitJobRequest {
        request_id: format!("{:016x}{:016x}", random(), random()),
        spec: Some(pb::JobSpec {
            kind: Some(pb::job_spec::Kind::Probe(probe)),
            source: "examples/clients/rust".to_owned(),
            timeout: duration(120, 0), // the job's own deadline
            ..Default::default()
        }),
        ..Default::default()
    };
    let submitted: pb::SubmitJobResponse = fleet.call("/hivefold.v1.JobService/SubmitJob", &submission).await?;
    let again: pb::SubmitJobResponse = fleet.call("/hivefold.v1.JobService/SubmitJob", &submission).await?;
    let job_id = submitted.job.unwrap_or_default().job_id;
    eprintln!("submitted {job_id}");
    let (events, cuts) = fleet.watch(&job_id).await?;

    let unknown = pb::GetJobRequest { job_id: "no-such-job".to_owned() };
    let refusal: Result<pb::GetJobResponse, Status> = fleet.call("/hivefold.v1.JobService/GetJob", &unknown).await;
    let refused = refusal.err().map(|error| error_info(&error)).unwrap_or_default();

    let online = nodes.iter().find(|node| node.state() == pb::NodeState::Online).ok_or("no node is online")?;
    let address = online.spec.clone().unwrap_or_default().grpc_address;
    let outputs = fleet.infer(&address, model).await?;
    let ended = events.last().and_then(|event| event.job.as_ref()).ok_or("the watch gave no events")?;
    let found = json!({
        "health": health.status().as_str_name(),
        "nodes": nodes.iter().filter_map(|node| node.spec.as_ref()).map(|spec| &spec.node_id).collect::<Vec<_>>(),
        "pages": pages,
        "job": job_id,
        "same_job": again.job.is_some_and(|job| job.job_id == job_id),
        "sequences": events.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        "cuts": cuts,
        "state": ended.state().as_str_name(),
        "leader": fleet.target,
        "refused": {"reason": refused.reason, "metadata": refused.metadata},
        "outputs": outputs,
    });
    println!("{found}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [addresses, model] => run(addresses, model).await,
        _ => Err("usage: hivefold-client ADDRESS[,ADDRESS...] MODEL".into()),
    }
}
