{{/* What all pods of the pool share: they need nothing of the API, no privileges, and a small writable /tmp. */}}
{{- define "eyas.poolPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 1Gi
{{- end -}}

{{- define "eyas.poolEnv" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: HOME
  value: /tmp
- name: TMPDIR
  value: /tmp
- name: PYTHONUNBUFFERED
  value: "1"
{{- end -}}

{{/* Peers of the pool: its own pods. */}}
{{- define "eyas.poolPeer" -}}
podSelector:
  matchLabels:
    {{- include "eyas.selector" . | nindent 4 }}
    eyas.dev/pool: {{ include "eyas.pool" . }}
{{- end -}}

{{/* How long a pod stays on a node that is lost: what it held is captured again elsewhere. */}}
{{- define "eyas.lostNode" -}}
{{- range (list "not-ready" "unreachable") }}
- {key: node.kubernetes.io/{{ . }}, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- end }}
{{- end -}}
