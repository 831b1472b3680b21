//! What the SDK does differently for us, for each request.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use http_body_util::Limited;

/// Largest answer that is a message: a page of a listing has a thousand names of a kilobyte.
const MESSAGE_MAX: usize = 8 << 20;

/// Has the signature cover the content, or not, without the SDK reading it once more for each try.
/// The value is the content's SHA-256 in hexadecimal.
#[derive(Debug)]
pub(super) struct SignContent(pub(super) Option<String>);

impl Intercept for SignContent {
    fn name(&self) -> &'static str {
        "SignContent"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(match &self.0 {
            Some(digest) => PayloadSigningOverride::Precomputed(digest.clone()),
            None => PayloadSigningOverride::UnsignedPayload,
        });
        Ok(())
    }
}

/// Limits how much of an answer is taken in that is a message: the SDK has no limit of its own.
#[derive(Debug)]
pub(super) enum CapAnswer {
    /// Every answer is.
    Message,
    /// Only a refusal is; else it is an object, of which the reader knows how long it may be.
    Object,
}

impl Intercept for CapAnswer {
    fn name(&self) -> &'static str {
        "CapAnswer"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if matches!(self, Self::Message) || !response.status().is_success() {
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, MESSAGE_MAX));
        }
        Ok(())
    }
}
