//! What whoever started the cluster has set.

use phalanx_core::policy::{PolicyName, Weights};
use phalanx_core::wire::DrainLimits;

use super::Hub;
use crate::event::Event;
use crate::policy::MakePolicy;
use crate::primary::tasks::output::LinesSink;
use crate::settings::{DispatchChoice, Settings};

impl Hub {
    pub(in crate::primary) fn setup(&mut self, settings: Settings) {
        let have_fewer_rights = settings.uid.is_some() || settings.gid.is_some();
        self.allowance
            .change(settings.allow_listen.clone(), have_fewer_rights);
        self.settings = settings;
        self.emit(&Event::Setup);
    }

    pub(in crate::primary) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(in crate::primary) fn set_output(&mut self, sink: LinesSink) {
        self.output = Some(sink);
    }

    pub(in crate::primary) fn output(&self) -> Option<LinesSink> {
        self.output.clone()
    }

    pub(in crate::primary) fn policy(&self) -> PolicyName {
        self.policy
    }

    pub(in crate::primary) fn set_policy(&mut self, policy: PolicyName) {
        self.policy = policy;
    }

    pub(in crate::primary) fn set_weights(&mut self, weights: Weights) {
        self.weights = weights;
    }

    pub(in crate::primary) fn set_custom_policy(&mut self, custom: Option<MakePolicy>) {
        self.custom_policy = custom;
    }

    pub(in crate::primary) fn set_drain_limits(&mut self, limits: DrainLimits) {
        self.drain_limits = Some(limits);
    }

    pub(in crate::primary) fn set_dispatch(&mut self, dispatch: DispatchChoice) {
        self.dispatch = dispatch;
    }
}
