//! A robot's node in Rust: finds a daemon, hears captions, asks. It needs the messages crate and zenoh, no more.
//!
//! `cargo run --release -p mobilevlm-tests --example robot [ENDPOINT]`

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use messages::keys::{Key, Name, Topic};
use messages::{AnswerPiece, AskError, Caption, Format, Message, Question, Status, decode, encode};
use zenoh::query::ConsolidationMode;
use zenoh::{Config, Wait};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let endpoint = std::env::args().nth(1).unwrap_or("tcp/127.0.0.1:7447".into());
    let mut config = Config::default();
    config.insert_json5("mode", "\"client\"")?;
    config.insert_json5("connect/endpoints", &format!("[\"{endpoint}\"]"))?;
    let session = zenoh::open(config).wait()?;

    // Who is there?
    let reply = session.get(Key::new(Name::any(), Topic::Status).to_string()).wait()?.recv()?;
    let sample = reply.into_result().map_err(|_| "no status")?;
    let status: Status = decode(&sample.payload().to_bytes(), Format::Postcard)?;
    let (device, camera) = (Name::new(status.device)?, Name::new(&status.cameras[0].state.camera)?);
    println!("{device} sees through {camera} with {}", status.model.id);

    // Captions, as they come. The stamp is the time of capture.
    let key = Key::new(device.clone(), Topic::Caption(camera.clone()));
    let captions = session.declare_subscriber(key.to_string()).wait()?;
    for sample in captions.iter().take(3) {
        // The encoding names the message and its version: another version is an error, not nonsense.
        let format = Caption::format(&sample.encoding().to_string())?;
        let caption: Caption = decode(&sample.payload().to_bytes(), format)?;
        println!("{}: {}", caption.frame.captured_at, caption.text);
    }

    // A question. Pieces come as they are written, then one final answer or one error.
    let question = Question { max_tokens: 32, deadline_ms: 20_000, ..Question::new("What do you see?") };
    let replies = session
        .get(Key::new(device, Topic::Ask(camera)).to_string())
        .payload(encode(&question, Format::Postcard))
        .encoding(Question::encoding(Format::Postcard))
        // Else zenoh keeps the final answer only.
        .consolidation(ConsolidationMode::None)
        .timeout(Duration::from_secs(30))
        .wait()?;
    for reply in replies {
        let sample = match reply.into_result() {
            Ok(sample) => sample,
            Err(error) => {
                let error: AskError = decode(&error.payload().to_bytes(), Format::Postcard)?;
                return Err(format!("no answer: {}: {error}", error.kind()).into());
            }
        };
        match decode(&sample.payload().to_bytes(), Format::Postcard)? {
            AnswerPiece::Text { text, .. } => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            AnswerPiece::Final(answer) => {
                println!("\n(frame {}, {} tokens)", answer.frame.sequence, answer.tokens.generated);
            }
            AnswerPiece::Error(error) => return Err(error.into()),
        }
    }
    Ok(())
}
