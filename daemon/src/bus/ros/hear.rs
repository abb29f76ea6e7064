//! Questions of nodes of ROS 2: text on one topic, pieces and the end of each answer on two others.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use messages::{Answer, AskError, Question};
use tokio::task::block_in_place;
use zenoh::Wait;
use zenoh::liveliness::LivelinessToken;
use zenoh::pubsub::Subscriber;
use zenoh::sample::{Sample, SampleKind};

use super::voice::{Tone, Voice};
use super::{Node, locked};
use crate::ros::RosMessage;
use crate::ros::layout::{Endpoint, Layout, Role};
use crate::ros::message::Words;
use crate::ros::speech::{self, Mark, QUESTION_BYTES};

/// A topic on which questions to a camera arrive.
pub(super) struct Heard {
    _ears: Vec<(Subscriber<()>, LivelinessToken)>,
}

impl Node {
    /// Listens to questions to a camera.
    pub(super) fn listen(self: &Arc<Self>, topic: String, camera: &str) {
        let mut heard = locked(&self.heard);
        if heard.contains_key(&topic) {
            return;
        }
        let endpoint =
            Endpoint { role: Role::Subscription, topic, kind: Words::TYPE, qos: Tone::Reply.qos() };
        let ears =
            self.ways.iter().enumerate().map(|(way, layout)| self.ear(way, *layout, &endpoint, camera));
        match ears.collect() {
            Ok(ears) => {
                heard.insert(endpoint.topic, Heard { _ears: ears });
            }
            Err(error) => tracing::warn!(topic = endpoint.topic, %error, "no questions from ROS 2"),
        }
    }

    fn ear(
        self: &Arc<Self>,
        way: usize,
        layout: Layout,
        endpoint: &Endpoint,
        camera: &str,
    ) -> zenoh::Result<(Subscriber<()>, LivelinessToken)> {
        // The node holds the subscriber.
        let (node, camera) = (Arc::downgrade(self), camera.to_owned());
        let receive = move |sample: Sample| {
            if let (Some(node), SampleKind::Put) = (node.upgrade(), sample.kind()) {
                node.receive(&camera, way, &sample);
            }
        };
        let key = layout.key(&endpoint.topic, endpoint.kind);
        let subscriber = self.session.declare_subscriber(key).callback(receive).wait()?;
        let token = layout.token(&self.owner, self.next_endpoint(), endpoint);
        Ok((subscriber, self.session.liveliness().declare_token(token).wait()?))
    }

    /// Runs on a thread of zenoh: it hands over and returns.
    fn receive(self: &Arc<Self>, camera: &str, way: usize, sample: &Sample) {
        let arrived = Instant::now();
        self.desk.counts.asked();
        let payload = sample.payload();
        // Before the bytes are joined to one piece.
        let question = match payload.len() {
            0..=QUESTION_BYTES => speech::question(&payload.to_bytes()),
            got => {
                let (got, limit) = (got as u64, QUESTION_BYTES as u64);
                let what = "question in bytes".into();
                Err((Mark::default(), AskError::TooLong { what, got, limit }))
            }
        };
        let (node, camera) = (self.clone(), camera.to_owned());
        let taken = question.and_then(|(mark, question)| match self.desk.place() {
            Ok(place) => Ok((mark, question, place)),
            Err(error) => Err((mark, error)),
        });
        let (mark, question, place) = match taken {
            Ok(taken) => taken,
            Err((mark, error)) => {
                return self.desk.refusals.send(move || node.end(&camera, way, &mark, Err(&error)));
            }
        };
        self.desk.runtime.spawn(async move {
            let outcome = node.answer(&camera, way, (&mark, question), arrived).await;
            block_in_place(|| node.end(&camera, way, &mark, outcome.as_ref()));
            drop(place);
        });
    }

    /// Publishes pieces of the answer as they come, and returns its end.
    async fn answer(
        &self,
        camera: &str,
        way: usize,
        (mark, question): (&Mark, Question),
        arrived: Instant,
    ) -> Result<Answer, AskError> {
        let known: Vec<String> = self.desk.inputs.cameras().into_iter().map(|state| state.camera).collect();
        if !known.iter().any(|known| known == camera) {
            return Err(AskError::UnknownCamera { camera: camera.into(), known });
        }
        let mut open = self.desk.open(camera, question, arrived)?;
        let partial = self.known(&self.topics.answer_partial(camera));
        let say = |_, text: String| {
            if let Some(partial) = &partial {
                partial.say_in(way, &mark.say(&text));
            }
        };
        // Nobody tells which node asked, so none is seen to leave.
        self.desk.pass_on(&mut open, pending(), say).await
    }

    /// Publishes the one message that ends a question.
    fn end(&self, camera: &str, way: usize, mark: &Mark, outcome: Result<&Answer, &AskError>) {
        self.desk.note(outcome);
        let words = match outcome {
            Ok(answer) => mark.say(&answer.text),
            Err(error) => {
                tracing::debug!(camera, kind = error.kind(), %error, "question of ROS 2 refused");
                mark.refuse(error)
            }
        };
        match self.known(&self.topics.answer(camera)) {
            Some(answers) => answers.say_in(way, &words),
            None => tracing::debug!(camera, "the end of a question has nobody to go to"),
        }
    }

    /// The voice of a topic that is offered already.
    fn known(&self, topic: &str) -> Option<Arc<Voice>> {
        locked(&self.spoken).get(topic).map(|(voice, _)| voice.clone())
    }
}
