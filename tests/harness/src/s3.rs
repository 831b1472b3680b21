//! A light S3 server in this process, over a folder.
//!
//! It checks signatures and checksums, and is a stranger's code: `s3s-fs`. What it does not know is
//! versions, locks and encryption, and of several conditional puts at once more than one can win. Only
//! the bytes of objects are read here: it reads them by 4 KiB, each on another thread, so that a
//! restore would wait for nothing but this server.

use std::io::SeekFrom;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::io::ReaderStream;

use crate::{Result, Scratch};

/// The key that the server knows.
pub const ACCESS_KEY: &str = "harness-key";
/// Its secret.
pub const SECRET_KEY: &str = "harness-secret-0123456789";
/// The bucket that exists.
pub const BUCKET: &str = "haulout-test";

/// Bytes that go out at once.
const BODY_PIECE: usize = 256 << 10;

/// A running server. It ends with this value.
pub struct S3Server {
    address: SocketAddr,
    scratch: Scratch,
    ca: Option<PathBuf>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    pub fn start() -> Result<Self> {
        Self::start_with(None, Scratch::new()?)
    }

    /// Starts one with TLS, with a certificate of an authority of its own: see [`S3Server::ca`].
    pub fn start_tls() -> Result<Self> {
        let scratch = Scratch::new()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let ca = scratch.join("ca.pem");
        std::fs::write(&ca, made.cert.pem())?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
        let mut server = Self::start_with(Some(Arc::new(config).into()), scratch)?;
        server.ca = Some(ca);
        Ok(server)
    }

    /// Starts one that ignores `If-None-Match` without a word, as some do.
    pub fn start_without_conditions() -> Result<Self> {
        let scratch = Scratch::new()?;
        let files = Files { conditions: false, ..files(&scratch)? };
        Self::serve(S3ServiceBuilder::new(files), None, scratch)
    }

    fn start_with(tls: Option<TlsAcceptor>, scratch: Scratch) -> Result<Self> {
        let files = files(&scratch)?;
        Self::serve(S3ServiceBuilder::new(files), tls, scratch)
    }

    fn serve(
        mut builder: S3ServiceBuilder,
        tls: Option<TlsAcceptor>,
        scratch: Scratch,
    ) -> Result<Self> {
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3-server")
            .enable_all()
            .build()?;
        let bind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(bind).context("listen on loopback")?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(&listener, &service, tls.as_ref()) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { address, scratch, ca: None, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for clients.
    pub fn endpoint(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate that a client has to trust, of a server with TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Where the bucket's objects are files.
    pub fn bucket_dir(&self) -> PathBuf {
        self.scratch.join("s3").join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn files(scratch: &Scratch) -> Result<Files> {
    let root = scratch.join("s3");
    std::fs::create_dir_all(root.join(BUCKET))?;
    let files = FileSystem::new(&root).map_err(|error| anyhow!("s3s-fs: {error:?}"))?;
    Ok(Files { files, root, conditions: true })
}

/// The stranger's server, with bodies of our own.
struct Files {
    files: FileSystem,
    root: PathBuf,
    /// Whether `If-None-Match` means something.
    conditions: bool,
}

impl Files {
    /// The bytes of an object that an answer says it has.
    async fn body(
        &self,
        bucket: &str,
        key: &str,
        about: &GetObjectOutput,
    ) -> Option<StreamingBlob> {
        // "bytes FIRST-LAST/ALL"
        let first = match &about.content_range {
            None => 0,
            Some(range) => range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?,
        };
        let length = u64::try_from(about.content_length?).ok()?;
        let mut file = tokio::fs::File::open(self.root.join(bucket).join(key)).await.ok()?;
        file.seek(SeekFrom::Start(first)).await.ok()?;
        let bytes = ReaderStream::with_capacity(file.take(length), BODY_PIECE);
        Some(StreamingBlob::wrap(bytes))
    }
}

/// Passes requests on.
macro_rules! files {
    ($($method:ident($input:ty) -> $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Files {
            async fn put_object(
                &self,
                mut request: S3Request<PutObjectInput>,
            ) -> S3Result<S3Response<PutObjectOutput>> {
                if !self.conditions {
                    request.input.if_none_match = None;
                }
                self.files.put_object(request).await
            }

            async fn get_object(
                &self,
                request: S3Request<GetObjectInput>,
            ) -> S3Result<S3Response<GetObjectOutput>> {
                let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
                let mut response = self.files.get_object(request).await?;
                if let Some(body) = self.body(&bucket, &key, &response.output).await {
                    response.output.body = Some(body);
                }
                Ok(response)
            }

            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$method(request).await
            })*
        }
    };
}

files! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    copy_object(CopyObjectInput) -> CopyObjectOutput;
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    list_parts(ListPartsInput) -> ListPartsOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
}

async fn accept(listener: &TcpListener, service: &S3Service, tls: Option<&TlsAcceptor>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let service = service.clone();
        match tls.cloned() {
            None => drop(tokio::spawn(serve(socket, service))),
            Some(tls) => drop(tokio::spawn(async move {
                if let Ok(socket) = tls.accept(socket).await {
                    serve(socket, service).await;
                }
            })),
        }
    }
}

/// A client that goes away is no business of the server's.
async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: S3Service) {
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(socket), service).await;
}
