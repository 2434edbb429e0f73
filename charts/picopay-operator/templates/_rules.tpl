{{/* What the operator may do where there are engines, but for Secrets. Each line has its use. */}}
{{- define "picopay-operator.rules" -}}
# The engines: read, and their finalizer and status written. They are never made or deleted.
- apiGroups: [picopay.io]
  resources: [picopayengines]
  verbs: [get, list, watch, patch]
- apiGroups: [picopay.io]
  resources: [picopayengines/status]
  verbs: [get, patch]
# Owner references of what is made need this where the cluster enforces it.
- apiGroups: [picopay.io]
  resources: [picopayengines/finalizers]
  verbs: [update]
# What an engine consists of.
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# What a cluster may lack.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [postgresql.cnpg.io]
  resources: [clusters]
  verbs: [get, list, watch, create, patch, delete]
# Why pods do not start, and what a Job has left in its termination message.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Volumes grow, and are kept or removed, as the engine says. The StatefulSet makes them.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# The operator's own Lease, by which it knows that it still hears from the cluster.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [picopay-operator]
  verbs: [list, watch]
{{- end -}}

{{/* What the operator may do with Secrets, where there are engines and nowhere else. */}}
{{- define "picopay-operator.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}

{{/* The subject of all bindings. */}}
{{- define "picopay-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "picopay-operator.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
