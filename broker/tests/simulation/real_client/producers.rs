//! Programs that write: each has a client with a producer, now and then a new one.

use std::rc::Rc;

use corelog_client::{Client, ProducerRecord};
use corelog_io::{Queue, sleep, spawn};

use super::apps::App;
use super::plan::{DELIVERY_TIMEOUT, ProducerPlan, SEND_TIMEOUT};
use crate::shared::below;

pub async fn produce(app: Rc<App>, plan: ProducerPlan) {
    while !app.stopped() {
        let Some(client) = app.connect().await else { continue };
        while !app.stopped() {
            session(&app, &client, &plan).await;
            if app.misbehaves(3) {
                break;
            }
        }
        if app.stopped() {
            app.check_leftovers().await;
        }
    }
}

/// One producer's life.
async fn session(app: &Rc<App>, client: &Client, plan: &ProducerPlan) {
    let producer = client.producer(plan.config()).expect("the config is sound");
    let session = app.truth().new_session(plan.promise);
    let records = 10 + below(300);
    for _ in 0..records {
        if app.stopped() {
            break;
        }
        let at = app.any_partition();
        let name = app.truth().send(session, &at);
        let record = ProducerRecord::to(at.topic.clone()).partition(at.partition).value(name.to_value());
        let sent = app.within(SEND_TIMEOUT, "send", producer.send(record)).await;
        match sent {
            Err(error) => {
                assert!(error.is_retriable(), "send: {error}");
                app.truth().told(name, &at, Err(&error));
            }
            Ok(delivery) => {
                let app = app.clone();
                spawn(Queue::Control, async move {
                    let outcome = app.within(DELIVERY_TIMEOUT, "a delivery", delivery).await;
                    match outcome {
                        Ok(written) => {
                            app.truth().told(name, &at, Ok(written.offset));
                            app.heard();
                        }
                        Err(error) => app.truth().told(name, &at, Err(&error)),
                    }
                })
                .detach();
            }
        }
        if below(20) == 0 {
            app.within(DELIVERY_TIMEOUT, "flush", producer.flush()).await.expect("it says nothing of fates");
        }
        sleep(app.pace()).await;
    }
    if app.stopped() || below(2) == 0 {
        app.within(DELIVERY_TIMEOUT, "close of a producer", producer.close())
            .await
            .expect("it has no transaction");
    }
}
