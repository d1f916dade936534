//! The bucket's mark: see [`crate::binding`].

use bytes::Bytes;

use super::{S3, object_of, parse, sign::Ask};
use crate::{
    BlobError,
    binding::{MARK, Place, StoreId},
    limits::{MARKS_MAX, S3_LIST_BYTES_MAX, S3_REPLY_BYTES_MAX},
};
use ::s3::serde_types::ListBucketResult;

impl S3 {
    pub(crate) fn place(&self) -> Place {
        Place { bucket: self.bucket.clone(), prefix: self.prefix.clone() }
    }

    /// The stores whose marks there are, as far as anybody needs to know.
    pub(crate) async fn marks(&self) -> Result<Vec<StoreId>, BlobError> {
        let operation = "look for the bucket's mark";
        let prefix = format!("{}{MARK}", self.prefix);
        let ask = Ask::List { prefix: prefix.clone(), after: None, limit: MARKS_MAX };
        let reply = self.client.call(operation, "/", &ask, Bytes::new(), S3_LIST_BYTES_MAX).await?;
        let page: ListBucketResult = parse(operation, &reply.done(operation)?.body)?;
        let ids = page.contents.iter().filter_map(|one| one.key.strip_prefix(&prefix));
        let ids = ids.filter_map(|id| Some(StoreId::from_bytes(*object_of(id)?.as_bytes())));
        Ok(ids.collect())
    }

    pub(crate) async fn put_mark(&self, id: StoreId) -> Result<(), BlobError> {
        let operation = "mark the bucket";
        let words = format!(
            "The objects whose names begin like this one's are the messages of Rookery's store\n\
             {id}. Without this object its nodes do not start.\n"
        );
        let key = self.place().mark(id);
        let reply = self.client.call(operation, &key, &Ask::Put, words.into(), S3_REPLY_BYTES_MAX);
        reply.await?.done(operation).map(drop)
    }
}
