package deploy

import (
	"testing"

	"github.com/rejoin-io/rejoin/tests/manifests"
)

const k8s = root + "/k8s"

func TestRenders(t *testing.T) {
	for _, overlay := range []string{"dev", "prod"} {
		objects, err := manifests.Render(k8s+"/overlays/"+overlay, k8s+"/components/servicemonitor", k8s+"/components/hpa-connections")
		if err != nil {
			t.Error(err)
		}
		t.Log(len(objects))
	}
}
