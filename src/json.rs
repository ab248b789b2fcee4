//! Events to JSON lines, payloads from JSON. Nothing else names serde_json.

/// Why a payload is not the JSON that was asked for.
pub type JsonError = serde_json::Error;
