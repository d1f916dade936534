//! Hands what is logged to [`node::logs`], which keeps the last lines.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
};

use env::Env;
use node::logs::{Level, LogLine, Logs};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

/// The span around all that a node does, where several share a process.
const NODE: &str = "node";

/// What a span was given: small, because each idle session has one.
#[derive(Default)]
struct Fields(Vec<(&'static str, Box<str>)>);

/// What an event was given.
#[derive(Default)]
struct Said {
    message: String,
    fields: BTreeMap<String, String>,
}

/// The layer, below the log's own filter.
pub(super) struct Kept {
    clock: Env,
    logs: Logs,
}

impl Default for Kept {
    fn default() -> Self {
        Self { clock: Env::system(), logs: Logs::process() }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut node = None;
        let spans = context.event_scope(event).into_iter().flatten();
        for span in spans {
            if span.name() == NODE {
                node = of(&span, |_, id| id.to_owned()).pop();
                continue;
            }
            let named =
                |name: &str, value: &str| (format!("{}.{name}", span.name()), value.to_owned());
            said.fields.extend(of(&span, named));
        }
        let about = event.metadata();
        self.logs.push(LogLine {
            at_ms: self.clock.wall().unix_ms(),
            level: level(*about.level()),
            target: about.target().to_owned(),
            message: said.message,
            fields: said.fields,
            node,
        });
    }
}

/// What is made of a span's fields.
fn of<'a, S: LookupSpan<'a>, T>(span: &SpanRef<'a, S>, make: impl Fn(&str, &str) -> T) -> Vec<T> {
    let extensions = span.extensions();
    let fields = extensions.get::<Fields>().map(|Fields(fields)| fields.as_slice());
    fields.unwrap_or_default().iter().map(|(name, value)| make(name, value)).collect()
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

impl Fields {
    fn set(&mut self, field: &Field, value: Box<str>) {
        self.0.retain(|(name, _)| *name != field.name());
        self.0.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                self.fields.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            // Writing to a string does not fail.
            "message" => drop(write!(self.message, "{value:?}")),
            name => {
                self.fields.insert(name.to_owned(), format!("{value:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn lines_are_kept_with_their_fields_and_their_node() {
        let logs = Logs::default();
        let kept = Kept { clock: Env::system(), logs: logs.clone() };
        let subscriber = tracing_subscriber::registry().with(kept);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(count = 3, name = "x", "alone");
            let node = tracing::info_span!("node", id = "n1");
            let _node = node.enter();
            let session = tracing::info_span!("session", id = %"0a", protocol = "imap");
            let _session = session.enter();
            tracing::info!(error = %"e\n", "within");
        });
        let lines = logs.lines();
        assert_eq!(lines.len(), 2);
        assert_eq!((&*lines[0].message, lines[0].level), ("alone", Level::Warn));
        let fields = |line: &LogLine| {
            line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(fields(&lines[0]), ["count=3", "name=x"]);
        assert_eq!(lines[0].node, None);
        assert_eq!(fields(&lines[1]), ["error=e\\n", "session.id=0a", "session.protocol=imap"]);
        assert_eq!(lines[1].node.as_deref(), Some("n1"));
    }
}
