{{/* The name of the engine. Names of its objects begin with it, so it is shorter than a release's may be. */}}
{{- define "picopay-engine.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "the name of an engine has at most 40 characters, and %q has %d: set fullnameOverride" $name (len $name)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The image of the API, for the test: as the operator makes it from the same values. */}}
{{- define "picopay-engine.image" -}}
{{- $image := .Values.image | default dict -}}
{{- $repository := $image.repository | default "picopay/picopay-api" -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .Values.version | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
