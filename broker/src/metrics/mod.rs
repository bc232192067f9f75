//! temporary
use std::time::Duration;
#[derive(Default)]
pub struct ShardMetrics;
#[derive(Default, Clone)]
pub struct Snapshot;
impl ShardMetrics {
    pub fn snapshot(&self) -> Snapshot { Snapshot }
    pub fn new() -> Self { ShardMetrics }
    pub fn request_received(&self, _bytes: usize) {}
    pub fn request_answered(&self, _api: i16, _bytes: usize, _took: Duration) {}
    pub fn connection_opened(&self) {}
    pub fn connection_closed(&self) {}
    pub fn connection_refused(&self) {}
    pub fn produced(&self, _records: u64, _bytes: u64) {}
    pub fn produce_refused(&self, _code: i16) {}
    pub fn fetched(&self, _bytes: u64) {}
}
