{{/*
A webhook for Secrets. Arguments: root, name, namespaceSelector, and as CEL: protected, whether the object is protected, and
renewedBy, the users that renew it. protected is a conjunction that begins with the name.
*/}}
{{- define "kubelet-https-guard.secretsWebhook" -}}
- name: {{ .name }}
  admissionReviewVersions: [v1]
  sideEffects: NoneOnDryRun
  failurePolicy: {{ .root.Values.webhook.failurePolicy }}
  timeoutSeconds: 3
  matchPolicy: Equivalent
  clientConfig:
    {{- include "kubelet-https-guard.clientConfig" .root | nindent 4 }}
  rules:
    - operations: [CREATE, UPDATE, DELETE]
      apiGroups: [""]
      apiVersions: [v1]
      resources: [secrets]
      scope: Namespaced
  namespaceSelector:
    {{- toYaml .namespaceSelector | nindent 4 }}
  # One condition: API servers evaluate all conditions of a webhook, also after one that is false, but only the part of an
  # expression that decides it. So a write of another Secret costs the first line, and the authorizer is asked last.
  matchConditions:
    - name: must-be-checked
      expression: |-
        {{- .protected | nindent 8 }}
        // Never refuse deletes by these controllers: it would only block them. The audit reports what they deleted.
        && (request.operation != "DELETE" || !(request.userInfo.?username.orValue("")
          in {{ include "kubelet-https-guard.deletingControllers" .root }}))
        // Never refuse updates by the garbage collector that only remove owners, finalizers or blockOwnerDeletion: it
        // would retry forever, and an owner that was deleted with --cascade=orphan would stay Terminating.
        && (request.operation != "UPDATE"
          || request.userInfo.?username.orValue("") != "system:serviceaccount:kube-system:generic-garbage-collector"
          || ["type", "data", "immutable"].exists(f, object[?f] != oldObject[?f])
          || object.metadata[?"annotations"] != oldObject.metadata[?"annotations"]
          || object.metadata.?finalizers.orValue([]).exists(f, !(f in oldObject.metadata.?finalizers.orValue([])))
          || object.metadata.?ownerReferences.orValue([]).exists(r,
            !oldObject.metadata.?ownerReferences.orValue([]).exists(o,
            o.apiVersion == r.apiVersion && o.kind == r.kind && o.name == r.name && o.uid == r.uid)))
        // Neither an outage nor a bug of the webhook may block a renewal. These users never need to delete.
        && (request.operation == "DELETE" || !(request.userInfo.?username.orValue("")
          in {{ .renewedBy }}))
        // The storage migrator would retry a refused write forever, although the write changes nothing.
        && (request.operation != "UPDATE"
          || ["type", "data", "immutable"].exists(f, object[?f] != oldObject[?f])
          || ["ownerReferences", "finalizers", "annotations", "deletionTimestamp"].exists(f,
            object.metadata[?f] != oldObject.metadata[?f]))
        {{- with include "kubelet-https-guard.whenActive" .root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
{{- end -}}
