{{/* The name of resources, and what other names begin with: at most 45 characters, so that the job's fits into 63. */}}
{{- define "qwen-allinone.name" -}}
{{- $both := printf "%s-%s" .Release.Name .Chart.Name -}}
{{- .Values.fullnameOverride | default (ternary .Release.Name $both (contains .Chart.Name .Release.Name)) | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* What is on every resource. */}}
{{- define "qwen-allinone.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Whom selectors mean: this release's servers, and not the job. */}}
{{- define "qwen-allinone.server" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "qwen-allinone.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "qwen-allinone.keys" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "qwen-allinone.name" .)) }}
{{- end -}}

{{- define "qwen-allinone.claim" -}}
{{ .Values.model.volume.existingClaim | default (printf "%s-models" (include "qwen-allinone.name" .)) }}
{{- end -}}

{{/* Helm reads whole numbers as fractions, and would write large ones as 1e+06. */}}
{{- define "qwen-allinone.setting" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* What the ConfigMap holds. */}}
{{- define "qwen-allinone.settings" -}}
QAIO_MODEL: {{ .Values.model.name | quote }}
{{- if .Values.keys.enabled }}
QAIO_API_KEYS_FILE: /etc/qwen-allinone/keys
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ include "qwen-allinone.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Seconds a pod may take to stop: preStop, then Gunicorn's graceful timeout (gunicorn.conf.py), then some to spare. */}}
{{- define "qwen-allinone.stop" -}}
{{- $settings := .Values.settings -}}
{{- $deadline := addf ($settings.QAIO_DEADLINE_S | default 120) 5 -}}
{{- add 10 (ceil ($settings.QAIO_GRACE_S | default $deadline)) 15 -}}
{{- end -}}

{{/* Settings that a value of the chart makes: said twice, one of the two would be wrong. */}}
{{- define "qwen-allinone.refuse" -}}
{{- $instead := dict
  "QAIO_MODEL" "say model.name"
  "QAIO_API_KEYS_FILE" "say keys.enabled and keys.existingSecret"
  "QAIO_REDIS_URL" "it may hold a password: put it into a Secret and name that in redis.existingSecret"
  "QAIO_STATE_URL" "it may hold a password: put it into a Secret and name that in postgresql.existingSecret"
  "HF_TOKEN" "put it into a Secret and name that in tokensSecret"
  "HF_HUB_OFFLINE" "pods ask no hub; the download job does"
  "HF_HOME" "it is /models, where the volume is"
  "QAIO_HOST" "pods listen on every address, port 5000"
  "QAIO_PORT" "pods listen on port 5000; service.port is the Service's" -}}
{{- range $name, $value := .Values.settings -}}
{{- if and (hasKey $instead $name) (not (kindIs "invalid" $value)) -}}
{{- fail (printf "settings.%s cannot be set there: %s" $name (get $instead $name)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host, the name under which clients reach the service" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.min) (int .Values.autoscaling.max)) -}}
{{- fail (printf "autoscaling.min=%v is more than autoscaling.max=%v" .Values.autoscaling.min .Values.autoscaling.max) -}}
{{- end -}}
{{- end -}}

{{/* Where environment variables of both containers come from. */}}
{{- define "qwen-allinone.environment" -}}
- configMapRef: {name: {{ include "qwen-allinone.name" . }}}
- secretRef: {name: {{ .Values.tokensSecret | default (include "qwen-allinone.name" .) | quote }}, optional: true}
{{- end -}}

{{/* What both pods are: who they run as and where. */}}
{{- define "qwen-allinone.pod" -}}
automountServiceAccountToken: false
# Else a Service called qaio-... would set QAIO_* variables, which are ignored with a warning.
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What both containers may: not a value, since nothing in the image needs more. */}}
{{- define "qwen-allinone.rights" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
