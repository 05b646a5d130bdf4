//! A GPU policy that imports an interface which no host has: it must be refused before it is run.

#[allow(missing_docs, unsafe_code, clippy::all, clippy::pedantic, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package hostile:guest;

            interface secrets {
                read: func(namespace: string, name: string) -> list<u8>;
            }

            world unknown-import {
                import secrets;
                export substratus:plugin/gpu-placing@0.1.0;
            }
        ",
        path: "../../../wit",
        world: "hostile:guest/unknown-import",
        generate_all,
    });
}

use bindings::{
    exports::substratus::plugin::gpu_placing::{Failure, Guest, Placement, Request},
    hostile::guest::secrets,
};

struct Plugin;

impl Guest for Plugin {
    fn place(request: Request, _: Option<Placement>) -> Result<Placement, Failure> {
        let secret = secrets::read(&request.subject.namespace, "hub");
        Err(Failure::Internal(String::from_utf8_lossy(&secret).into_owned()))
    }
}

#[expect(unsafe_code, reason = "what a component exports is unsafe to name in Rust")]
mod export {
    use super::{Plugin, bindings};

    bindings::export!(Plugin with_types_in bindings);
}
