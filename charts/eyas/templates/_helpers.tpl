{{/* Names. At most 45 characters, so that every name derived from them is a DNS label. */}}
{{- define "eyas.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "eyas.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains (include "eyas.name" .) .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "eyas.name" .) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "eyas.operator" -}}
{{- printf "%s-operator" (include "eyas.fullname" .) -}}
{{- end -}}

{{- define "eyas.pool" -}}
{{- printf "%s-pool" (include "eyas.fullname" .) -}}
{{- end -}}

{{- define "eyas.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "eyas.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "eyas.keySecret" -}}
{{- default (printf "%s-operator-key" (include "eyas.fullname" .)) .Values.operatorKey.existingSecret -}}
{{- end -}}

{{/* Labels. Selectors never change: the name is `eyas` whatever nameOverride says, as the policies of jobs rely on it. */}}
{{- define "eyas.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: eyas
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: eyas
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "eyas.selector" -}}
app.kubernetes.io/name: eyas
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* An image reference; call with (dict "image" .Values.image "root" $). */}}
{{- define "eyas.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The watched namespaces, comma-separated, as the operator reads them. */}}
{{- define "eyas.watchNamespaces" -}}
{{- if .Values.watchNamespaces -}}
{{- if and (has "*" .Values.watchNamespaces) (gt (len .Values.watchNamespaces) 1) -}}
{{- fail "watchNamespaces: \"*\" stands alone" -}}
{{- end -}}
{{- join "," .Values.watchNamespaces -}}
{{- else -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}
