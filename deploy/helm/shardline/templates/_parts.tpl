{{/* The names of the release's objects. */}}
{{- define "shardline.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "shardline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shardline.labels" -}}
{{ include "shardline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "shardline.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "shardline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "shardline.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* The settings of a process, by kind: those of sources only where sources are read. */}}
{{- define "shardline.settings" -}}
{{- $all := deepCopy .root.Values.settings -}}
{{- if has .kind (list "producer" "gateway") -}}{{- $all = merge (deepCopy .root.Values.sourceSettings) $all -}}{{- end -}}
{{- if eq .kind "gateway" -}}{{- $all = merge (deepCopy .root.Values.gateway.settings) $all -}}{{- end -}}
{{- range $name, $value := $all }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The secrets of a process, by kind. */}}
{{- define "shardline.secrets" -}}
{{- $all := deepCopy .root.Values.secrets -}}
{{- if has .kind (list "producer" "gateway") -}}{{- $all = merge (deepCopy .root.Values.sourceSecrets) $all -}}{{- end -}}
{{- if eq .kind "gateway" -}}{{- $all = merge (deepCopy .root.Values.gatewaySecrets) $all -}}{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* Environment of a container. */}}
{{- define "shardline.env" -}}
{{- include "shardline.settings" . }}
- name: SHARDLINE_METRICS_PORT
  value: "9400"
- name: SHARDLINE_SHUTDOWN_GRACE_SECONDS
  value: {{ .root.Values.shutdownGrace | quote }}
{{- range $name, $from := fromYaml (include "shardline.secrets" .) }}
- name: {{ $name }}_FILE
  value: /secrets/{{ $name }}
{{- end }}
{{- end }}

{{- define "shardline.mounts" -}}
- {name: spool, mountPath: /spool}
- {name: tmp, mountPath: /tmp}
{{- if fromYaml (include "shardline.secrets" .) }}
- {name: secrets, mountPath: /secrets, readOnly: true}
{{- end }}
{{- if .root.Values.certificates.configMap }}
- {name: certificates, mountPath: /certificates, readOnly: true}
{{- end }}
{{- end }}

{{/* Volumes of a pod. `size`: of the spool. */}}
{{- define "shardline.volumes" -}}
- name: spool
  emptyDir: {sizeLimit: {{ .size }}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with fromYaml (include "shardline.secrets" .) }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $from := . }}
      - secret:
          name: {{ $from.secret }}
          items:
            - {key: {{ $from.key }}, path: {{ $name }}}
      {{- end }}
{{- end }}
{{- with .root.Values.certificates.configMap }}
- name: certificates
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* What a pod may do: nothing that it does not need. */}}
{{- define "shardline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "shardline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "shardline.probes" -}}
# While /healthz does not answer the process does not turn: it is started again. Not ready is no reason for
# that: what it waits for would still be away.
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{/* What workers are scaled by. */}}
{{- define "shardline.lag" -}}
{{- $here := printf "namespace=%q" .Release.Namespace -}}
(sum(shardline_lag_documents{ {{- $here -}} }) or vector(0)) + (sum(shardline_jobs{ {{- $here -}} ,state=~"running|completing"}) or vector(0))
{{- end }}

{{/* The pod of a long-running process. */}}
{{- define "shardline.pod" -}}
{{- $root := .root -}}
{{- $values := .values -}}
metadata:
  labels:
    {{- include "shardline.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .kind }}
spec:
  serviceAccountName: {{ include "shardline.serviceAccount" $root }}
  # None of them speaks to Kubernetes.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $root.Values.shutdownGrace $root.Values.shutdownMargin }}
  securityContext:
    {{- include "shardline.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .kind }}
      image: {{ include "shardline.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .kind }}]
      env:
        {{- include "shardline.env" . | trim | nindent 8 }}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: metrics, containerPort: 9400}
        {{- if eq .kind "gateway" }}
        - {name: http, containerPort: 45681}
        {{- end }}
      {{- include "shardline.probes" $root | nindent 6 }}
      {{- if eq .kind "gateway" }}
      lifecycle:
        # New calls come until every node knows that the pod goes.
        preStop: {exec: {command: [sleep, "5"]}}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- include "shardline.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        {{- include "shardline.mounts" . | nindent 8 }}
        {{- if .files }}
        - {name: files, mountPath: /data, readOnly: true}
        {{- end }}
  volumes:
    {{- include "shardline.volumes" . | nindent 4 }}
    {{- if .files }}
    - name: files
      persistentVolumeClaim: {claimName: {{ .files }}, readOnly: true}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    {{- if $values.affinity }}
    {{- toYaml $values.affinity | nindent 4 }}
    {{- else }}
    # Two on one node fall together.
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "shardline.selector" $root | nindent 16 }}
                app.kubernetes.io/component: {{ .kind }}
    {{- end }}
{{- end }}
